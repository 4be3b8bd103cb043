"""The asset ``song_pages``: a page per partition, reported song by song."""

from collections.abc import Iterator

import dagster as dg
import pytest
from instances import new_instance
from page_songs import noise, store_song
from platforms import Platform, local_settings

from assets.analysis import analyze
from assets.pages import song_pages
from assets.songs import songs
from bandscope_dagster.orchestration.partitions import SONGS_NAME, SONGS_PARTITIONS
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.run_tags import RANGE_END_TAG, RANGE_START_TAG, REUSE_TAG

SONGS = ["first", "second", "third"]


@pytest.fixture
def platform(tmp_path) -> Iterator[Platform]:
    with new_instance() as instance:
        made = Platform(local_settings(tmp_path / "store"), instance)
        instance.add_dynamic_partitions(SONGS_NAME, SONGS)
        for seed, song in enumerate(SONGS):
            store_song(made.store, song, {"vocals": noise(1, seed=seed)})
        yield made


def materialize(platform: Platform, **tags: str) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [song_pages],
        instance=platform.instance,
        resources=resources(platform.settings),
        tags={RANGE_START_TAG: SONGS[0], RANGE_END_TAG: SONGS[-1]} | tags,
        raise_on_error=False,
    )


def status(platform: Platform) -> dict[str, str | None]:
    found = (
        platform.instance.get_status_by_partition(dg.AssetKey("song_pages"), SONGS, SONGS_PARTITIONS) or {}
    )
    return {song: value.value if (value := found.get(song)) else None for song in SONGS}


def test_a_backfill_writes_pages_in_their_own_runs() -> None:
    # Dagster's condition for assets to share a run; in that run the pages would be skipped.
    assert song_pages.backfill_policy != analyze.backfill_policy == songs.backfill_policy


def test_every_song_has_a_page_and_a_materialization_with_its_link(platform: Platform) -> None:
    result = materialize(platform)
    assert result.success
    assert set(status(platform).values()) == {"MATERIALIZED"}
    keys = {found.key for found in platform.store.list("song_pages")}
    assert keys == {f"song_pages/{name}.html" for name in (*SONGS, "index")}
    for song, event in platform.events(result.run_id, "song_pages").items():
        page = platform.store.uri(f"song_pages/{song}.html")
        assert event.metadata["page"] == dg.MetadataValue.path(page)
        assert event.metadata["dagster/uri"].value == page
        assert event.metadata["reused"].value is False and event.metadata["status"].value == "ok"
        assert event.metadata["size_mb"].value == pytest.approx(
            platform.store.head(f"song_pages/{song}.html").size / 1e6, abs=1e-3
        )
        assert event.tags is not None and event.tags["dagster/input_data_version/stems"] == "NULL"


def test_a_failed_song_fails_alone_and_the_run_has_the_cause(platform: Platform) -> None:
    platform.store.delete("songs/second.parquet")
    result = materialize(platform)
    assert not result.success
    assert status(platform) == {"first": "MATERIALIZED", "second": "FAILED", "third": "MATERIALIZED"}
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "1 of 3 songs failed" in str(failure.step_failure_data.user_failure_data)
    assert "second is in no table" in str(failure.step_failure_data.user_failure_data)


def test_an_up_to_date_page_is_kept_on_request_and_marked_as_reused(platform: Platform) -> None:
    first = materialize(platform)
    again = materialize(platform, **{REUSE_TAG: "true"})
    store_song(platform.store, "second", {"vocals": noise(1, seed=9)})
    changed = materialize(platform, **{REUSE_TAG: "true"})

    def reused(run: dg.ExecuteInProcessResult) -> dict[str, object]:
        events = platform.events(run.run_id, "song_pages")
        return {song: events[song].metadata["reused"].value for song in SONGS}

    assert reused(first) == dict.fromkeys(SONGS, False)
    assert reused(again) == dict.fromkeys(SONGS, True)
    assert reused(changed) == {"first": True, "second": False, "third": True}
