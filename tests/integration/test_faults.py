"""Faulty storage: 10 % of all calls fail, in every possible way, and no song is lost, duplicated or torn.

The long form has 500 songs: ``pytest --long tests/integration/test_faults.py -k tenth -o junit_family=xunit1
--junitxml=faults.xml``. The file then has the number of each fault, and of unfinished songs after each run.
"""

from collections.abc import Callable

import pytest
from faulty_proxy import PASSING, FaultyProxy
from instances import new_instance
from long_forms import quick_or_long
from platforms import PER_SONG, WHEN, Platform, s3_settings, song_bytes
from polars.testing import assert_frame_equal
from s3_server import S3Server

from bandscope_dagster.storage.objects import s3_bucket, s3_listing

SONGS = quick_or_long(8, long=500)
ATTEMPTS = 4  # runs over unfinished songs, each with the retries of its steps


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent connections are closed after 1 s, so that the tests are fast."""
    monkeypatch.setattr(s3_bucket, "STALL_TIMEOUT_S", 1)
    monkeypatch.setattr(s3_listing, "STALL_TIMEOUT_S", 1)


@pytest.fixture
def far(s3_server: S3Server, faulty_proxy: FaultyProxy) -> Platform:
    """A platform with songs, whose storage is behind the proxy. No call fails yet."""
    place = s3_server.place(faulty_proxy.endpoint)
    with new_instance() as instance:
        platform = Platform(s3_settings(place), instance)
        platform.upload({f"song {number}.wav": song_bytes(number, seconds=1.0) for number in range(SONGS)})
        yield platform


def unfinished(platform: Platform) -> set[str]:
    return {
        song
        for asset in PER_SONG
        for song, state in platform.status(asset).items()
        if state != "MATERIALIZED"
    }


def test_with_a_tenth_of_all_calls_failing_everything_ends_as_without(
    far: Platform,
    faulty_proxy: FaultyProxy,
    s3_server: S3Server,
    record_property: Callable[[str, object], None],
) -> None:
    faulty_proxy.fail_at_random(0.1, seed=7)
    left: list[int] = []  # unfinished songs after each run
    while not left or (left[-1] and len(left) <= ATTEMPTS):
        far.materialize(reuse=bool(left))
        left.append(len(unfinished(far)))
    record_property("songs left after each run", left)
    assert not left[-1]
    assert len(far.songs) == SONGS
    while not far.materialize_catalogs().success:
        assert sum(faulty_proxy.broken.values()) < 125 * SONGS
    assert set(faulty_proxy.broken) == set(PASSING), "a kind of fault never happened"
    record_property("requests", len(faulty_proxy.requests))
    record_property("broken", dict(faulty_proxy.broken))
    faulty_proxy.heal()

    calm = Platform(s3_settings(s3_server.place()), far.instance)
    for key in (found.key for found in far.store.list("uploads")):
        with calm.store.create(key) as pending:
            pending.write(far.store.read(key))
    assert calm.materialize().success and calm.materialize_catalogs().success
    ours, theirs = (
        {key: digest for key, digest in place.digests().items() if not key.startswith("songs/")}
        for place in (far, calm)
    )
    assert ours == theirs and len(ours) == 4 * SONGS
    # The copies were uploaded later.
    ours, theirs = (place.table("songs").sort("song_id").drop("uploaded_at") for place in (far, calm))
    assert_frame_equal(ours, theirs)
    assert not list(far.store.list("song_failures"))
    for table in ("song_catalog", "instrument_catalog", "song_errors"):
        ours, theirs = (place.table(table).drop(WHEN, strict=False) for place in (far, calm))
        times = [name for name in ours.columns if name.endswith("_at")]
        assert_frame_equal(ours.drop(times), theirs.drop(times))


def test_where_storage_is_silent_the_run_fails_and_says_where_and_why(
    far: Platform, faulty_proxy: FaultyProxy
) -> None:
    faulty_proxy.fail("", "silent")
    result = far.materialize()
    assert not result.success
    told = " ".join(
        str(event.event_specific_data) for event in result.filter_events(lambda e: e.is_step_failure)
    )
    assert "in the store s3://" in told and "secret" not in told
    assert set(far.status("songs").values()) == {"FAILED"}
