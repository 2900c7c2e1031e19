"""Benches run by hand against nginx and Debian's docker-registry: `python -m tests.bench [NAME...] [--json FILE]`."""
