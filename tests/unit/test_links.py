"""Names of pushed content as small files: written whole or not at all, listed as they are, durable in this order."""

import os
import threading
import time

import pytest

from proxy.store import links as module
from proxy.store.links import Links


@pytest.fixture
def links(tmp_path):
    return Links(str(tmp_path / "names"))


def test_a_link_is_its_text(links):
    assert links.get("a", "_tags", "1") is None
    links.put("sha256:1", "a", "_tags", "1")
    assert links.get("a", "_tags", "1") == "sha256:1"
    links.put("sha256:2", "a", "_tags", "1")
    assert links.get("a", "_tags", "1") == "sha256:2"
    assert links.remove("a", "_tags", "1")
    assert not links.remove("a", "_tags", "1")
    assert links.get("a", "_tags", "1") is None


def test_names_are_sorted_by_their_bytes_and_hold_nothing_half_made(links):
    for name in ("b", "a", "B", "a-1", "a.1"):
        links.put("", "repo", "_tags", name)
    (folder,) = [os.path.join(links.folder, "repo", "_tags")]
    open(os.path.join(folder, ".c.123"), "w").close()
    assert links.names("repo", "_tags") == ["B", "a", "a-1", "a.1", "b"]
    assert links.names("other", "_tags") == []


def test_repositories_within_repositories(links):
    for repository in ("a", "a/b/c", "a-b", "z"):
        links.put("", *repository.split("/"), "_tags", "1")
    links.put("", "only-blobs", "_blobs", "sha256-1")
    os.makedirs(os.path.join(links.folder, "empty"))
    assert sorted(links.repositories()) == ["a", "a-b", "a/b/c", "only-blobs", "z"]


def test_what_is_a_folder_or_below_a_file_is_no_link(links):
    links.put("x", "a", "_tags", "1")
    assert links.get("a", "_tags") is None
    assert links.get("a", "_tags", "1", "2") is None
    assert not links.remove("a", "_tags", "1", "2")
    assert links.names("a", "_tags", "1") == []


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_return(links, monkeypatch):
    done = []
    for name in ("fsync", "rename"):
        really = getattr(os, name)

        def noted(*args, name=name, really=really):
            what = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else args[1]
            done.append((name, os.path.basename(what)[:5]))
            return really(*args)

        monkeypatch.setattr(module.os, name, noted)
    links.put("text", "repo", "_tags", "1")
    assert done[:2] == [("fsync", "names"), ("fsync", "repo")], "new folders in those above"
    assert [step for step, _ in done[2:]] == ["fsync", "rename", "fsync"]
    assert done[3:] == [("rename", "1"), ("fsync", "_tags")]


def test_a_full_disk_leaves_the_old_text_and_nothing_else(links, monkeypatch):
    links.put("old", "a", "_tags", "1")

    def full(fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            links.put("new", "a", "_tags", "1")
    assert links.get("a", "_tags", "1") == "old"
    assert os.listdir(os.path.join(links.folder, "a", "_tags")) == ["1"]
    assert os.listdir(os.path.join(links.folder, ".making")) == []


def test_a_folder_that_another_process_made_is_made_durable_too(links, monkeypatch):
    os.makedirs(os.path.join(links.folder, "dev", "app", "_tags"))
    synced = []
    monkeypatch.setattr(module.os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    links.put("text", "dev", "app", "_tags", "1")
    chain = [links.folder, f"{links.folder}/dev", f"{links.folder}/dev/app"]
    assert synced[:3] == chain
    links.put("other", "dev", "app", "_tags", "1")
    assert not set(synced[5:]) & set(chain), "once"


def test_what_a_kill_left_on_its_way_is_swept(links):
    links.put("text", "dev", "app", "_tags", "1")
    for name, age in (("old", 1000), ("young", 1)):
        path = os.path.join(links.folder, ".making", name)
        with open(path, "w"):
            pass
        os.utime(path, (time.time() - age,) * 2)
    links.sweep(100)
    assert os.listdir(os.path.join(links.folder, ".making")) == ["young"]
    assert list(links.repositories()) == ["dev/app"]


def test_many_writers_of_one_name_leave_one_whole_text(links):
    texts = [str(number) * 1000 for number in range(10)]
    threads = [threading.Thread(target=links.put, args=(text, "a", "_tags", "1")) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert links.get("a", "_tags", "1") in texts
    assert links.names("a", "_tags") == ["1"]
