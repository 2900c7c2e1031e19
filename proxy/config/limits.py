"""What a limit of the server may be. Readers as in values.py, which knows sizes but not what they are for."""

from proxy.config import values

_LEAST, _MOST = 8 << 10, 1 << 20


def header_size(value: object) -> int:
    """Bytes of a request's head. Registries' tokens alone reach 8 KiB; what is allowed, anybody may fill."""
    found = values.size(value)
    if not _LEAST <= found <= _MOST:
        raise ValueError(f'must be from "8KiB" to "1MiB", not {values.show_size(found)}')
    return found
