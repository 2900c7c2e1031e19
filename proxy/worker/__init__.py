"""One supervisor and its workers on one socket: start, restart, drain, end.

What lives here: the process as the machine sees it (folders, locks, sockets, signals, children). What must not:
anything about registries; what a worker serves comes from the compose module, imported by its name.

The supervisor is plain synchronous code without threads, because it forks. It holds the data folder's lock, the
listening sockets and the write end of a pipe nobody writes to: a worker that reads end-of-file there has lost its
supervisor and exits, so `kill -9` of the supervisor leaves nobody behind. The lock is shared with the workers (flock
belongs to the open file), therefore a new start succeeds exactly when the last of them is gone.
"""

from proxy.worker.child import Service
from proxy.worker.start import serve

__all__ = ["Service", "serve"]
