"""The folder of growing files: what is live, what weighs what, what is swept and what never."""

import os
import time

from proxy.oci.digest import Digest
from proxy.ports import Seen
from proxy.store.ingest import Leading
from proxy.store.lock import try_exclusive
from tests.unit.builders import nobody_said_anything

CONTENT = b"0123456789"
DIGEST = Digest.of(CONTENT)


def lead(store):
    found = store.claim(DIGEST, nobody_said_anything)
    assert isinstance(found, Leading)
    return found


def leave_part(store, name, size=10_000, age=0.0):
    """A part that nobody leads, last written `age` seconds ago."""
    path = store.parts.path(f"{name}.part")
    with open(path, "wb") as file:
        file.write(os.urandom(size))
    with open(store.parts.path(f"{name}.note"), "wb") as file:
        file.write(b"note")
    os.utime(path, (time.time() - age,) * 2)
    return path


async def test_live_lists_what_is_written_now(store):
    leave_part(store, "sha256-" + "a" * 64)
    leading = lead(store)
    leading.announce(10)
    await leading.write(CONTENT[:3])
    await leading.settle()
    assert store.parts.live() == [(str(DIGEST), Seen(2, 10, True))]
    await leading.close(discard=True)
    assert store.parts.live() == []


def test_bytes_are_those_on_disk(store):
    assert store.parts.bytes() == 0
    first = leave_part(store, "sha256-" + "a" * 64, 5000)
    second = leave_part(store, "sha256-" + "b" * 64, 1)
    assert store.parts.bytes() == sum(os.stat(path).st_blocks * 512 for path in (first, second))


def test_old_parts_go_with_their_notes_and_young_ones_stay(store):
    old, young = (leave_part(store, f"sha256-{c * 64}", age=age) for c, age in (("a", 1000), ("b", 10)))
    weight = os.stat(old).st_blocks * 512
    assert store.parts.sweep(100) == weight
    assert not os.path.exists(old)
    assert not os.path.exists(old.replace(".part", ".note"))
    assert os.path.exists(young)
    assert os.path.exists(young.replace(".part", ".note"))


def test_a_part_that_is_finished_while_others_are_swept(store, monkeypatch):
    """Listed, and gone before it is looked at: the others are swept all the same."""
    gone, *rest = (leave_part(store, f"sha256-{c * 64}", age=1000) for c in "abc")
    listed = store.parts._entries

    def entries():
        found = list(listed())
        os.unlink(gone)
        return iter(found)

    monkeypatch.setattr("proxy.store.parts.Parts._entries", lambda parts: entries())
    assert store.parts.sweep(100) > 0
    assert not any(map(os.path.exists, rest))


def test_a_part_somebody_leads_is_never_swept_however_old(store):
    path = leave_part(store, "sha256-" + "a" * 64, age=10_000)
    fd = os.open(path, os.O_RDWR)
    try:
        assert try_exclusive(fd)
        assert store.parts.sweep(100) == 0
        assert os.path.exists(path)
    finally:
        os.close(fd)
    assert store.parts.sweep(100) > 0


def test_a_part_that_became_another_file_is_not_swept(store, monkeypatch):
    """A leader renames its part away and another one begins anew under the same name, between listing and locking."""
    path = leave_part(store, "sha256-" + "a" * 64, age=10_000)
    really = os.open

    def between(name, *rest, **more):
        fd = really(name, *rest, **more)
        if name == path:
            os.rename(path, f"{path}.away")
            os.close(really(path, os.O_WRONLY | os.O_CREAT))
        return fd

    monkeypatch.setattr("proxy.store.parts.os.open", between)
    assert store.parts.sweep(100) == 0
    assert os.path.exists(path)
