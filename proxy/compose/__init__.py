"""Which concrete class stands behind every Protocol: `prepare` and `finish` once a machine, `check` before each set of
workers, `build` once a worker."""

from proxy.compose.prepare import check, finish, prepare
from proxy.compose.service import Service, build

__all__ = ["Service", "build", "check", "finish", "prepare"]
