"""Configuration for the clients that pull through this cache: one writer per client."""
