"""The behaviour of every object store, tested on a local folder and on a real S3 server."""

import os
import random
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore, S3Options, StoredObject

MIB = 1024 * 1024


def put(store: ObjectStore, key: str, data: bytes) -> None:
    with store.create(key) as pending:
        pending.write(data)


def keys(store: ObjectStore, prefix: str = "", after: str | None = None) -> list[str]:
    return [found.key for found in store.list(prefix, after=after)]


def test_what_was_written_is_read_back_whole_in_chunks_and_in_ranges(store: ObjectStore):
    data = random.Random(0).randbytes(20 * MIB + 17)  # more than one part of an S3 upload
    put(store, "a/big.bin", data)

    assert store.read("a/big.bin") == data
    chunks = list(store.chunks("a/big.bin"))
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= 4 * MIB
    with store.open("a/big.bin") as file:
        assert file.seek(-10, os.SEEK_END) == len(data) - 10
        assert file.read(100) == data[-10:]
        assert file.read(1) == b""
        file.seek(5 * MIB)
        assert file.read(1000) == data[5 * MIB : 5 * MIB + 1000]


def test_an_empty_object_is_an_object(store: ObjectStore):
    put(store, "empty", b"")
    assert store.read("empty") == b""
    assert keys(store) == ["empty"]
    assert store.head("empty").size == 0


def test_a_head_tells_size_time_and_a_fingerprint_that_changes_with_the_content(store: ObjectStore):
    put(store, "song.wav", b"first")
    before = store.head("song.wav")
    assert isinstance(before, StoredObject)
    assert (before.key, before.size) == ("song.wav", 5)
    assert before.modified.tzinfo is UTC or before.modified.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - before.modified) < timedelta(minutes=1)
    assert store.head("song.wav") == before
    assert list(store.list()) == [before]

    put(store, "song.wav", b"other")
    assert store.head("song.wav").fingerprint != before.fingerprint


def test_a_missing_object_has_no_head_cannot_be_read_and_can_be_deleted(store: ObjectStore):
    assert store.head("a/none") is None
    store.delete("a/none")
    for read in (store.read, store.open, lambda key: list(store.chunks(key))):
        with pytest.raises(FileNotFoundError, match="a/none") as caught:
            read("a/none")
        assert store.url in str(caught.value)


def test_a_folder_is_no_object(store: ObjectStore):
    put(store, "folder/file", b"x")
    assert store.head("folder") is None


def test_a_deleted_object_is_gone(store: ObjectStore):
    put(store, "a", b"x")
    store.delete("a")
    assert store.head("a") is None
    assert keys(store) == []


def test_listing_gives_a_folder_in_key_order_and_resumes_behind_a_key(store: ObjectStore):
    names = ["uploads/b/2.mp3", "uploads/a.mp3", "uploads/b/1.mp3", "uploads/c.mp3", "uploads_old/z.mp3"]
    for name in names:
        put(store, name, b"x")
    ordered = ["uploads/a.mp3", "uploads/b/1.mp3", "uploads/b/2.mp3", "uploads/c.mp3"]
    assert keys(store, "uploads") == ordered
    assert keys(store, "uploads/b") == ordered[1:3]
    assert keys(store, "uploads", after="uploads/b/1.mp3") == ordered[2:]
    assert keys(store) == [*ordered, "uploads_old/z.mp3"]
    assert keys(store, "nothing/here") == []


def test_fingerprints_are_those_of_a_folder_itself_as_its_listing_has_them(store: ObjectStore):
    names = ["song-1.parquet", "no table.txt", "Jóga.parquet", "song-2.parquet"]
    for name in [*names, "below/song-3.parquet"]:
        put(store, f"songs/{name}", name.encode())
    put(store, "songs_old/song-4.parquet", b"x")
    listed = {found.key.removeprefix("songs/"): found.fingerprint for found in store.list("songs")}
    found = store.fingerprints(["songs", "nothing"])
    assert found == {"songs": {name: listed[name] for name in names}, "nothing": {}}
    assert store.fingerprints([]) == {}


@pytest.mark.parametrize(
    "name",
    [
        "with space.mp3",
        "Bjørk - Jóga (live) [2001].flac",
        "100% #1 hit?*.mp3",
        "50%25.mp3",
        "a+b&c='d'.mp3",
        "é.wav",
    ],
)
def test_the_names_that_people_give_their_songs_are_keys(store: ObjectStore, name: str):
    put(store, f"uploads/{name}", name.encode())
    assert keys(store, "uploads") == [f"uploads/{name}"]
    assert store.read(f"uploads/{name}") == name.encode()
    assert store.head(f"uploads/{name}").size == len(name.encode())


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/abs",
        "a//b",
        "a/",
        "../up",
        "a/../b",
        "./a",
        ".pending/x",
        "a/.hidden",
        "nul\0",
        "new\nline",
        "\ud800",
    ],
)
def test_a_key_that_could_leave_the_store_or_hide_is_refused(store: ObjectStore, key: str):
    for use in (store.head, store.read, store.open, store.create, store.delete, store.uri):
        with pytest.raises(ValueError, match="cannot be the key"):
            use(key)


def test_nothing_is_visible_before_commit_or_after_abort(store: ObjectStore):
    put(store, "k", b"old")
    pending = store.create("k")
    pending.write(b"new")
    assert store.read("k") == b"old"
    pending.abort()
    pending.abort()
    assert store.read("k") == b"old"
    assert keys(store) == ["k"]

    pending = store.create("k")
    pending.write(b"newer")
    assert pending.commit() == 5
    assert store.read("k") == b"newer"
    with pytest.raises(ValueError, match="already committed"):
        pending.commit()


def test_a_block_that_raises_writes_nothing(store: ObjectStore):
    with pytest.raises(RuntimeError, match="model"), store.create("k") as pending:
        pending.write(b"half")
        raise RuntimeError("model")
    assert keys(store) == []


def test_concurrent_readers_of_an_object_that_is_overwritten_see_old_or_new(store: ObjectStore):
    versions = [bytes([number]) * (3 * MIB) for number in range(6)]
    put(store, "k", versions[0])
    stop = threading.Event()
    seen: list[bytes] = []
    errors: list[BaseException] = []

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(store.read("k"))
            except BaseException as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for version in versions[1:]:
        put(store, "k", version)
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert len(seen) > 3
    assert all(data in versions for data in seen)


WRITER = """
import sys
from bandscope_dagster.storage.objects.protocol import S3Options
from bandscope_dagster.storage.objects.open_store import open_store
store = open_store(sys.argv[1], S3Options(*sys.argv[2:]) if len(sys.argv) > 2 else None)
pending = store.create("table/song.parquet")
pending.write(b"x" * 5_000_000)
pending.file.flush()
print("half", flush=True)
sys.stdin.read()
"""


def test_a_killed_writer_leaves_neither_half_a_file_nor_a_partial_one(
    request: pytest.FixtureRequest, store: ObjectStore
):
    put(store, "table/song.parquet", b"old")
    arguments = [store.url]
    if store.url.startswith("s3://"):
        server = request.getfixturevalue("s3_server")
        arguments += [server.endpoint, server.access_key_id, server.secret_access_key, server.region]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout.readline() == "half\n"
        put(store, "table/living.parquet", b"does not disturb the other writer")
        assert keys(store) == ["table/living.parquet", "table/song.parquet"]
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    assert store.read("table/song.parquet") == b"old"
    assert keys(store) == ["table/living.parquet", "table/song.parquet"]

    if not store.url.startswith("s3://"):
        pending_folder = os.path.join(store.url, ".pending")
        assert len(os.listdir(pending_folder)) == 1, "the test kills the writer too early"
        put(open_store(store.url), "table/next.parquet", b"")  # the next process that writes
        assert os.listdir(pending_folder) == []


@pytest.mark.parametrize("url", ["", "gs://bucket/x", "https://example.org/x", "s3://"])
def test_a_url_that_is_no_store_is_refused(url: str):
    with pytest.raises(ValueError, match=r"s3://bucket/prefix"):
        open_store(url)


@pytest.mark.parametrize("url", ["s3:/bucket/x", "S3://bucket/x"])
def test_a_mistyped_url_of_a_bucket_is_no_local_folder(url: str):
    with pytest.raises(ValueError, match=r"Did you mean s3://bucket/x\?"):
        open_store(url)
    with pytest.raises(ValueError, match="is not a store"):
        open_store("file:/tmp/x")


def test_secrets_are_not_shown():
    assert "hush" not in repr(S3Options(access_key_id="a", secret_access_key="hush"))


def test_an_object_that_is_moved_has_one_key_and_the_same_fingerprint(store: ObjectStore):
    put(store, "a/song.wav", b"moved")
    put(store, "trash/a/song.wav", b"in the way")
    before = store.head("a/song.wav")
    store.move("a/song.wav", "trash/a/song.wav")
    assert keys(store) == ["trash/a/song.wav"] and store.read("trash/a/song.wav") == b"moved"
    assert before is not None
    assert store.head("trash/a/song.wav").fingerprint == before.fingerprint
    with pytest.raises(FileNotFoundError):
        store.move("a/song.wav", "trash/a/other.wav")


def test_of_several_writers_of_a_new_object_one_succeeds_and_its_data_stay(store: ObjectStore):
    for turn in range(5):
        outcomes: dict[bytes, bool] = {}
        barrier = threading.Barrier(4)

        def put_own(data: bytes, key: str, outcomes: dict[bytes, bool], barrier: threading.Barrier) -> None:
            barrier.wait()
            outcomes[data] = store.put_new(key, data)

        threads = [
            threading.Thread(target=put_own, args=(b"%d" % writer, f"log/{turn}.json", outcomes, barrier))
            for writer in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [data for data, is_new in outcomes.items() if is_new]
        assert store.read(f"log/{turn}.json") == winner
        assert not store.put_new(f"log/{turn}.json", b"later")
        assert store.read(f"log/{turn}.json") == winner
    assert keys(store) == [f"log/{turn}.json" for turn in range(5)]
