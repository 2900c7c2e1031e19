"""The commands. `main` holds them all; what one of them says in more than a few lines has a file of its own."""

from proxy.cli.main import main

__all__ = ["main"]
