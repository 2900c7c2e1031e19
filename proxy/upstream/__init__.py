"""Registries elsewhere: one request to one of them, the tokens it wants, the hosts it sends us to."""
