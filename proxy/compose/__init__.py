"""Which concrete class stands behind every Protocol: `prepare` once a machine, `build` once a worker."""

from proxy.compose.prepare import prepare
from proxy.compose.service import Service, build

__all__ = ["Service", "build", "prepare"]
