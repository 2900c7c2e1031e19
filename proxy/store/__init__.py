"""Bytes and names on this machine: finished blobs, growing files, the index, what all workers share."""
