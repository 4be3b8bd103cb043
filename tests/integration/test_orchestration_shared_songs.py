"""Songs that two runs compute: the second waits for the first, keeps its results, and says so."""

import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from daemon import wait_for
from dagster._core.events import StepMaterializationData
from instances import new_instance
from platforms import Platform, local_settings, song_bytes

from bandscope_dagster.orchestration import shared_songs
from bandscope_dagster.orchestration.run_tags import WAITS_FOR_TAG

STARTED = dg.DagsterEventType.RUN_START
ASSETS = ["songs"]


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """Three validated songs."""
    monkeypatch.setattr(shared_songs, "LOOK_EVERY_S", 0.1)
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({f"{number}.wav": song_bytes(number, 0.6) for number in range(3)})
        assert platform.materialize(ASSETS).success
        yield platform


def report(platform: Platform, run: dg.DagsterRun, event: dg.DagsterEventType, step: str | None) -> None:
    happened = dg.DagsterEvent(event.value, run.job_name, step_key=step)
    platform.instance.report_dagster_event(happened, run.run_id)


def reused(platform: Platform, run_id: str) -> dict[str, bool]:
    return {song: event.metadata["reused"].value for song, event in platform.events(run_id, "songs").items()}


def test_the_second_run_waits_for_the_songs_that_the_first_computes_and_keeps_its_results(
    platform: Platform,
) -> None:
    one, two, three = platform.songs
    tags = {"dagster/asset_partition_range_start": one, "dagster/asset_partition_range_end": two}

    @dg.job(name="validate_songs")
    def job() -> None: ...

    first = platform.instance.create_run_for_job(job, tags=tags)
    report(platform, first, STARTED, None)
    report(platform, first, dg.DagsterEventType.STEP_START, "songs")
    results: list[dg.ExecuteInProcessResult] = []
    second = threading.Thread(target=lambda: results.append(platform.materialize(ASSETS)))
    second.start()

    def told() -> list[str]:
        (run, *_) = platform.instance.get_runs()
        said = [entry.user_message for entry in platform.instance.all_logs(run.run_id)]
        return [line for line in said if "This run waits for it" in line]

    (line,) = wait_for("the second run waits", told)
    assert f"Run {first.run_id[:8]} computes 2 songs of this run now." in line
    assert one in line and two in line and three not in line
    running, *_ = platform.instance.get_runs()
    assert running.tags[WAITS_FOR_TAG] == first.run_id
    assert list(platform.events(running.run_id, "songs")) == [three], "its own song does not wait"
    made = dg.AssetMaterialization("songs", partition=one, metadata={"reused": False})
    kept = dg.AssetMaterialization("songs", partition=two, metadata={"reused": True})
    for event in (made, kept):
        data = StepMaterializationData(event)
        happened = dg.DagsterEvent(
            dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            first.job_name,
            step_key="songs",
            event_specific_data=data,
        )
        platform.instance.report_dagster_event(happened, first.run_id)
    report(platform, first, dg.DagsterEventType.RUN_CANCELED, None)
    second.join(timeout=300)
    assert results[0].success
    assert reused(platform, results[0].run_id) == {one: True, two: False, three: False}
    ended = platform.instance.get_run_by_id(results[0].run_id)
    assert ended is not None and not ended.tags[WAITS_FOR_TAG]


def test_a_run_without_a_common_song_is_not_waited_for(platform: Platform) -> None:
    @dg.job(name="validate_songs")
    def job() -> None: ...

    one, two, three = platform.songs
    first = platform.instance.create_run_for_job(job, tags={"dagster/partition": one})
    report(platform, first, STARTED, None)
    report(platform, first, dg.DagsterEventType.STEP_START, "songs")
    others = {"dagster/asset_partition_range_start": two, "dagster/asset_partition_range_end": three}
    results: list[dg.ExecuteInProcessResult] = []
    second = threading.Thread(target=lambda: results.append(platform.materialize(ASSETS, tags=others)))
    second.start()
    second.join(timeout=60)
    report(platform, first, dg.DagsterEventType.RUN_CANCELED, None)  # a run that waits goes on
    second.join(timeout=300)
    assert reused(platform, results[0].run_id) == {two: False, three: False}
    ended = platform.instance.get_run_by_id(results[0].run_id)
    assert ended is not None and WAITS_FOR_TAG not in ended.tags, "it waited"


def test_a_run_that_never_computed_a_song_takes_it_from_nobody(platform: Platform) -> None:
    """Another run over the same songs has started, and has not begun this step: this run computes them."""

    @dg.job(name="write_pages")
    def job() -> None: ...

    songs = platform.songs
    tags = {"dagster/asset_partition_range_start": songs[0], "dagster/asset_partition_range_end": songs[-1]}
    report(platform, platform.instance.create_run_for_job(job, tags=tags), STARTED, None)
    computed = platform.materialize(ASSETS)
    assert computed.success
    assert reused(platform, computed.run_id) == dict.fromkeys(songs, False)


def test_a_run_that_was_requested_after_another_had_ended_computes_again(platform: Platform) -> None:
    again = platform.materialize(ASSETS)
    assert again.success
    assert reused(platform, again.run_id) == dict.fromkeys(platform.songs, False)
