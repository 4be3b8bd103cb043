"""The S3 store with a real server, and real network faults between them."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from faulty_proxy import SILENT_S, FaultyProxy
from s3_server import S3Server

from bandscope_dagster.storage.objects import s3_bucket
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectChanged, ObjectStore, S3Options
from bandscope_dagster.storage.objects.retries import RETRY_FOR_S
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_tables import read_table, write_table

MIB = 1024 * 1024


@pytest.fixture
def far(s3_server: S3Server, faulty_proxy: FaultyProxy) -> ObjectStore:
    """A store behind the proxy."""
    return s3_server.place(faulty_proxy.endpoint).open()


def put(store: ObjectStore, key: str, data: bytes = b"data") -> None:
    with store.create(key) as pending:
        pending.write(data)


USES = {
    "head": lambda store: store.head("song.mp3"),
    "read": lambda store: store.read("song.mp3"),
    "range": lambda store: store.open("song.mp3").read(2),
    "list": lambda store: list(store.list()),
    "create": lambda store: put(store, "song.mp3"),
    "delete": lambda store: store.delete("other.mp3"),
}


@pytest.mark.parametrize("fault", ["503", "500", "reset"])
@pytest.mark.parametrize("use", USES)
def test_a_passing_fault_is_retried(far: ObjectStore, faulty_proxy: FaultyProxy, use: str, fault):
    put(far, "song.mp3")
    rule = faulty_proxy.fail("", fault, times=2)
    USES[use](far)
    assert rule.matched == 2
    assert far.read("song.mp3") == b"data"


def test_a_fault_that_outlasts_one_requests_own_retries_is_retried(
    far: ObjectStore, faulty_proxy: FaultyProxy
):
    put(far, "song.mp3")
    rule = faulty_proxy.fail(
        "song.mp3", "503", times=7
    )  # a request is sent three times before the call is repeated
    assert far.read("song.mp3") == b"data"
    assert rule.matched == 7


def test_a_download_that_breaks_in_its_middle_goes_on_from_there(far: ObjectStore, faulty_proxy: FaultyProxy):
    data = random.Random(0).randbytes(12 * MIB)
    put(far, "song.wav", data)
    faulty_proxy.requests.clear()
    rule = faulty_proxy.fail("song.wav", "truncated", method="GET", times=3)
    assert b"".join(far.chunks("song.wav")) == data
    assert rule.matched == 3


def test_a_part_of_an_upload_that_breaks_is_sent_again(far: ObjectStore, faulty_proxy: FaultyProxy):
    data = random.Random(0).randbytes(20 * MIB)
    rule = faulty_proxy.fail("partNumber=2", "reset", method="PUT", times=2)
    put(far, "song.wav", data)
    assert rule.matched == 2
    assert far.read("song.wav") == data


def test_a_lasting_fault_ends_in_about_ten_seconds_with_store_key_and_cause(
    far: ObjectStore, faulty_proxy: FaultyProxy
):
    def error_of(use: str) -> tuple[OSError, float]:
        started = time.monotonic()
        with pytest.raises(OSError, match=r"song\.mp3 in the store s3://.*503") as caught:
            USES[use](far)
        return caught.value, time.monotonic() - started

    put(far, "song.mp3", b"as it was")
    faulty_proxy.fail("song.mp3", "503")
    with ThreadPoolExecutor() as pool:
        for error, seconds in pool.map(error_of, ["read", "create"]):
            assert RETRY_FOR_S <= seconds < 13
            assert "secret" not in str(error)
            assert "access-key" not in str(error)
    faulty_proxy.heal()
    assert far.read("song.mp3") == b"as it was"


def test_a_refusal_is_not_retried(s3_server: S3Server):
    place = s3_server.place()
    put(place.open(), "song.mp3")
    stranger = open_store(place.url, S3Options(place.endpoint, place.access_key_id, "mistyped", place.region))
    started = time.monotonic()
    for use in USES.values():
        with pytest.raises(PermissionError, match=r"in the store s3://") as caught:
            use(stranger)
        assert "mistyped" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert time.monotonic() - started < 2


def test_a_missing_bucket_is_named(s3_server: S3Server):
    place = s3_server.place()
    store = open_store(
        "s3://no-such-bucket/x",
        S3Options(place.endpoint, place.access_key_id, place.secret_access_key, place.region),
    )
    started = time.monotonic()
    for use in (USES["list"], USES["read"]):
        with pytest.raises(FileNotFoundError, match="no-such-bucket"):
            use(store)
    assert time.monotonic() - started < 2


def test_a_name_that_no_client_takes_does_not_stop_the_listing(s3_server: S3Server):
    place = s3_server.place()
    store = place.open()
    for key in ("uploads/a.mp3", "uploads/z/b.mp3"):
        put(store, key)
    prefix = place.url.removeprefix(f"s3://{s3_server.bucket}/")
    s3_server.client().put_object(Bucket=s3_server.bucket, Key=f"{prefix}/uploads/m\nn.mp3", Body=b"x")
    listed = list(store.list("uploads"))
    assert [found.key for found in listed] == ["uploads/a.mp3", "uploads/z/b.mp3"]
    assert listed == [store.head(found.key) for found in listed], "both listings return the same fingerprints"
    assert "uploads/m\nn.mp3" in {found.key for found in store.list("uploads", any_name=True)}
    assert [found.key for found in store.list("uploads", after="uploads/a.mp3")] == ["uploads/z/b.mp3"]


def test_a_listing_longer_than_a_page_is_complete(s3_server: S3Server):
    store = s3_server.place().open()
    expected = [f"many/{number:04d}" for number in range(1203)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda key: put(store, key, b"x"), expected))
    assert [found.key for found in store.list("many")] == expected
    assert [found.key for found in store.list("many", after=expected[1100])] == expected[1101:]


def test_a_folder_that_a_console_made_is_not_listed(s3_server: S3Server):
    place = s3_server.place()
    store = place.open()
    put(store, "uploads/empty.mp3", b"")
    prefix = place.url.removeprefix(f"s3://{s3_server.bucket}/")
    s3_server.client().put_object(Bucket=s3_server.bucket, Key=f"{prefix}/uploads/new folder/", Body=b"")
    assert [found.key for found in store.list("uploads")] == ["uploads/empty.mp3"]


def test_ranges_of_a_replaced_object_are_never_mixed(s3_server: S3Server):
    store = s3_server.place().open()
    put(store, "k", b"old" * 1000)
    file = store.open("k")
    assert file.read(3) == b"old"
    put(store, "k", b"new" * 1000)
    with pytest.raises(ObjectChanged, match="k in the store"):
        file.read(3)


def test_the_standard_environment_is_enough(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch):
    place = s3_server.place()
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    store = open_store(place.url)
    put(store, "song.mp3")
    assert place.open().read("song.mp3") == b"data"


def test_polars_reads_with_the_options_that_the_store_gives(s3_server: S3Server):
    from song_rows import lineage, song_row

    store = s3_server.place().open()
    written = write_table(store, SONGS, [song_row("a")], lineage("a"))
    frame = pl.scan_parquet(written.uri, **store.polars_access()).collect()
    assert frame["song_id"].to_list() == ["a"]
    assert read_table(store, SONGS, "a").num_rows == 1


def test_a_store_does_not_show_its_secret(s3_server: S3Server):
    place = s3_server.place()
    assert place.secret_access_key not in repr(place)
    assert place.open().url == place.url
    assert place.open().uri("a/b") == f"{place.url}/a/b"


def test_polars_gives_up_a_connection_on_which_nothing_comes_and_asks_again(
    far: ObjectStore, faulty_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_bucket, "STALL_TIMEOUT_S", 1)
    with far.create("songs/song.parquet") as pending:
        pl.DataFrame({"song_id": ["song"]}).write_parquet(pending.file)
    silent = faulty_proxy.fail("song.parquet", "silent", method="GET", times=1)
    began = time.monotonic()
    found = pl.scan_parquet(far.uri("songs/song.parquet"), **far.polars_access()).collect()
    assert found["song_id"].to_list() == ["song"] and silent.matched == 1
    assert time.monotonic() - began < SILENT_S / 2, "polars waited until the server closed the connection"
