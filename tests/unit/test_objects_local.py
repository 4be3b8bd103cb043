"""The local store: links, pending files and faults, which only a disk has."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from bandscope_dagster.storage.objects.local import TRANSIENT_ERRNOS, LocalStore
from bandscope_dagster.storage.objects.local_pending import sweep
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.probe import without_trace


def put(store, key: str, data: bytes = b"x") -> None:
    with store.create(key) as pending:
        pending.write(data)


def keys(store) -> list[str]:
    return [found.key for found in store.list()]


def test_a_folder_that_does_not_exist_is_an_empty_store(tmp_path: Path):
    store = open_store(str(tmp_path / "none"))
    assert keys(store) == []
    assert store.head("a") is None
    assert not (tmp_path / "none").exists(), "reading creates no folder"


def test_the_uri_is_the_path(tmp_path: Path):
    store = open_store(str(tmp_path))
    put(store, "stems/a.parquet", b"data")
    assert Path(store.uri("stems/a.parquet")).read_bytes() == b"data"
    assert store.url == str(tmp_path)
    assert store.polars_access() == {}


def test_keys_are_ordered_by_their_bytes_as_on_s3(tmp_path: Path):
    store = open_store(str(tmp_path))
    names = ["a/x", "a-b/x", "a.txt", "ab/x", "B", "é", "z"]
    for name in names:
        put(store, name)
    assert keys(store) == sorted(names, key=str.encode)


def test_a_link_out_of_the_store_is_neither_listed_nor_followed(tmp_path: Path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("secret")
    store = open_store(str(tmp_path / "store"))
    put(store, "song.mp3")
    os.symlink(tmp_path / "secret", tmp_path / "store" / "folder")
    os.symlink(tmp_path / "secret" / "file", tmp_path / "store" / "link.mp3")
    assert keys(store) == ["song.mp3"]
    for key in ("folder/file", "link.mp3"):
        for use in (store.head, store.read, store.open, store.create, store.delete):
            with pytest.raises(PermissionError, match="link out of the store"):
                use(key)
    assert (tmp_path / "secret" / "file").read_text() == "secret"


def test_fingerprints_follow_no_link_out_of_the_store_and_tell_no_hidden_or_temporary_name(tmp_path: Path):
    store = open_store(str(tmp_path / "store"))
    put(store, "songs/song.parquet")
    (tmp_path / "secret.parquet").write_text("secret")
    songs = tmp_path / "store" / "songs"
    os.symlink(tmp_path / "secret.parquet", songs / "out.parquet")
    os.symlink(songs / "song.parquet", songs / "within.parquet")
    for name in (".hidden.parquet", "song.parquet.part", "new\nline.parquet"):
        (songs / name).write_bytes(b"x")
    (songs / "folder.parquet").mkdir()
    assert store.fingerprints(["songs"])["songs"].keys() == {"song.parquet", "within.parquet"}


def test_a_link_to_a_folder_above_makes_no_endless_listing(tmp_path: Path):
    store = open_store(str(tmp_path))
    put(store, "a/song.mp3")
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    assert keys(store) == ["a/song.mp3"]


def test_hidden_and_temporary_names_are_not_listed_and_what_is_no_key_only_on_request(tmp_path: Path):
    store = open_store(str(tmp_path))
    put(store, "song.mp3")
    for name in (b".hidden.mp3", b"song.mp3.part", b"x.crdownload", b"new\nline.mp3", b"latin-\xe9.mp3"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    assert keys(store) == ["song.mp3"]
    listed = {found.key for found in store.list(any_name=True)}
    assert listed == {"song.mp3", "new\nline.mp3", os.fsdecode(b"latin-\xe9.mp3")}


def test_a_probe_that_fails_leaves_no_folder(tmp_path: Path):
    with pytest.raises(OSError, match="full"), without_trace(open_store(str(tmp_path / "new"))):
        (tmp_path / "new" / ".pending").mkdir(parents=True)
        raise OSError("full")
    assert not (tmp_path / "new").exists()


def test_pending_files_lie_where_no_glob_of_analysts_finds_them(tmp_path: Path):
    store = open_store(str(tmp_path))
    pending = store.create("stems/a.parquet")
    pending.write(b"half")
    pending.file.flush()
    assert list(tmp_path.glob("stems/*.parquet")) == []
    assert list(tmp_path.glob("*/*.parquet")) == []
    assert len(list((tmp_path / ".pending").iterdir())) == 1
    pending.commit()
    assert list((tmp_path / ".pending").iterdir()) == []


def test_files_can_be_read_by_others_as_the_umask_says(tmp_path: Path):
    store = open_store(str(tmp_path))
    before = os.umask(0o022)
    try:
        put(store, "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_sweep_spares_living_writers_and_removes_what_the_dead_left(tmp_path: Path):
    store = LocalStore(str(tmp_path))
    living = store.create("a")
    living.write(b"alive")
    (tmp_path / ".pending" / "dead.part").write_bytes(b"half")
    assert sweep(store.root) == 1
    assert not (tmp_path / ".pending" / "dead.part").exists()
    living.commit()
    assert store.read("a") == b"alive"


def test_sweeps_that_race_with_writers_take_nothing_from_them(tmp_path: Path):
    stop = threading.Event()

    def keep_sweeping() -> None:
        sweeper = LocalStore(str(tmp_path))
        while not stop.is_set():
            sweep(sweeper.root)

    sweepers = [threading.Thread(target=keep_sweeping) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    store = LocalStore(str(tmp_path))
    try:
        for number in range(150):
            put(store, f"{number:03d}", str(number).encode())
    finally:
        stop.set()
        for sweeper in sweepers:
            sweeper.join()
    assert [store.read(key) for key in keys(store)] == [str(number).encode() for number in range(150)]


def test_a_fault_of_the_disk_is_named_with_key_and_store(tmp_path: Path):
    store = open_store(str(tmp_path))
    put(store, "file")
    with pytest.raises(OSError, match=r"file/below in the store") as caught:
        put(store, "file/below")
    assert caught.value.errno in (errno.ENOTDIR, errno.EEXIST)
    assert list((tmp_path / ".pending").iterdir()) == []


def test_a_full_disk_is_not_waited_for_and_a_lost_mount_is():
    assert errno.ESTALE in TRANSIENT_ERRNOS
    assert errno.EIO in TRANSIENT_ERRNOS
    assert not TRANSIENT_ERRNOS & {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT}


def test_a_disk_that_fails_twice_is_asked_a_third_time(tmp_path: Path):
    store = LocalStore(str(tmp_path))
    failures = [OSError(errno.ESTALE, "stale"), OSError(errno.EIO, "i/o")]

    def operation() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert store.call("a", operation) == "done"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_on_a_disk_without_second_names_a_new_object_is_still_put_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    store = open_store(str(tmp_path))
    assert store.put_new("log/0.json", b"first")
    assert not store.put_new("log/0.json", b"second")
    assert (tmp_path / "log" / "0.json").read_bytes() == b"first"
    assert keys(store) == ["log/0.json"] and list((tmp_path / ".pending").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EEXIST])
def test_a_new_object_that_a_mount_stores_but_reports_as_a_fault_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    """NFS repeats a request whose answer was lost, and then says that the name is taken."""
    link, calls = os.link, 0

    def link_then_fail(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        link(source, target)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link_then_fail)
    store = open_store(str(tmp_path))
    assert store.put_new("log/0.json", b"first")
    assert calls == (2 if number == errno.EIO else 1)
    assert not store.put_new("log/0.json", b"second")
    assert store.read("log/0.json") == b"first"
