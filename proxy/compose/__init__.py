"""Which concrete class stands behind every Protocol: `prepare` and `finish` once a machine, `check` before each set of
workers, `build` once a worker, `replaced` when one has died."""

from proxy.compose.prepare import check, finish, prepare, replaced
from proxy.compose.service import Service, build

__all__ = ["Service", "build", "check", "finish", "prepare", "replaced"]
