"""Everything the store does to a disk, ended by SIGKILL at a chosen step.

Run as `python -m tests.unit.killer FOLDER`: for n = 1, 2, ... a forked child works in FOLDER/<n> and kills itself
before its n-th step, until one comes through. A step is a call of the operating system or of SQLite that changes
something. What the child had promised by then stands in FOLDER/<n>.promised.
"""

import asyncio
import itertools
import os
import signal
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor

OLD, NEW, MANIFEST = b"old" * 50_000, b"new" * 700_000, b'{"schemaVersion": 2}'
CALLS = ("open", "pwrite", "pwritev", "fsync", "fchmod", "ftruncate", "rename", "unlink", "makedirs")


class Steps:
    """Counts, and kills at the n-th."""

    def __init__(self, last):
        self.left = last

    def step(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call):
        def wrapped(*args, **more):
            self.step()
            return call(*args, **more)

        return wrapped

    def install(self):
        for name in CALLS:
            setattr(os, name, self.around(getattr(os, name)))
        steps, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, statement, *args):
                if statement.lstrip()[:6].upper() not in ("SELECT", "PRAGMA"):
                    steps.step()
                return super().execute(statement, *args)

        sqlite3.connect = lambda *args, **more: connect(*args, **{"factory": Connection, **more})


async def work(data, promise):
    """A manifest, a blob in two pieces, an eviction that makes room for it."""
    from proxy.care import plan
    from proxy.care.evict import Janitor
    from proxy.care.pins import Pins
    from proxy.care.plan import Limits
    from proxy.oci.digest import Digest
    from proxy.oci.media import Descriptor, Manifest
    from proxy.oci.names import Repo
    from proxy.registry.content import keep_content
    from proxy.registry.rows import Rows
    from proxy.store.catalogue import Catalogue
    from proxy.store.index import Index
    from proxy.store.ingest import Store

    now = 1000.0
    index = Index(os.path.join(data, "index"))
    catalogue = Catalogue(os.path.join(data, "catalogue"), plan.rank, lambda: now)
    with ThreadPoolExecutor(1) as pool:
        store = Store(data, pool, pool, catalogue, lambda digest: True)
        await keep_content(store, Digest.of(OLD), OLD)
        promise("old")
        rows, manifest = Rows(index, "up", True), Digest.of(MANIFEST)
        await rows.put_manifest(Repo.parse("a"), Manifest(Descriptor(manifest, len(MANIFEST), "x/y"), MANIFEST))
        promise("row")
        await keep_content(store, manifest, MANIFEST)
        promise("manifest")
        now = 100_000.0
        janitor = Janitor(data, store, catalogue, Pins(os.path.join(data, "pins")), lambda total: Limits(len(OLD), 0))
        promise("may go: old")
        await janitor.make_room(len(OLD) // 2)
        lead = store.claim(Digest.of(NEW), lambda: None)
        lead.announce(len(NEW))
        await lead.write(NEW[: lead.received + (1 << 20)][lead.received :])
        await lead.settle()
        await lead.write(NEW[lead.received :])
        assert await lead.seal()
        await rows.put_blob(Repo.parse("a"), Digest.of(NEW), verified=len(NEW))
        await lead.publish()
        await lead.close(discard=False)
        promise("new")
    index.close()
    catalogue.close()


def child(folder, number):
    promised = os.open(f"{folder}.promised", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write = os.write
    os.makedirs(os.path.join(folder, "run"))
    Steps(number).install()
    asyncio.run(work(folder, lambda what: write(promised, f"{what}\n".encode())))


def main(folder):
    import proxy.care.evict
    import proxy.registry.content
    import proxy.registry.rows
    import proxy.store.ingest  # noqa: F401  (once, before the forks)

    for number in itertools.count(1):
        pid = os.fork()
        if pid == 0:
            try:
                child(os.path.join(folder, str(number)), number)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(sys.argv[1])
