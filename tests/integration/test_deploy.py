"""deploy/dagster.yaml unchanged: with a real PostgreSQL and a real daemon, and its limits."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from daemon import Home, wait_for
from platforms import PER_SONG, Platform, local_settings, song_bytes
from postgres import PostgresServer, run_postgres

from bandscope_dagster.orchestration.retry_backfill import retry_songs

DAGSTER_YAML = (Path(__file__).parents[2] / "deploy" / "dagster.yaml").read_text()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with run_postgres() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with the file over an empty database; each song is a run."""
    variables = postgres.database().environment()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Home.make(
        tmp_path / "home", tmp_path / "store", yaml=DAGSTER_YAML, variables=variables, songs_per_run=1
    )


def test_songs_are_recorded_in_postgresql_and_nowhere_else(home: Home, tmp_path: Path) -> None:
    with home.instance() as instance:
        platform = Platform(local_settings(tmp_path / "store"), instance)
        platform.upload({"one.wav": song_bytes(1, 0.6), "two.wav": song_bytes(2, 0.6)})
        assert platform.materialize().success
        for asset in PER_SONG:
            assert set(platform.status(asset).values()) == {"MATERIALIZED"}, asset
    assert not list(home.folder.rglob("*.db")), "files of SQLite"


def test_the_daemon_starts_runs_with_a_gpu_one_after_the_other(home: Home, tmp_path: Path) -> None:
    with home.instance() as instance:
        platform = Platform(local_settings(tmp_path / "store", songs_per_run=1), instance)
        platform.upload({"one.wav": song_bytes(1, 0.6), "two.wav": song_bytes(2, 0.6)})
        retry_songs(instance, platform.store, ["songs", "decoded_waveforms"], platform.settings)
        with home.daemon():
            wait_for(
                "both songs are done",
                lambda: (
                    len(runs := instance.get_run_records()) == 2
                    and all(run.dagster_run.status == dg.DagsterRunStatus.SUCCESS for run in runs)
                ),
                timeout_s=180,
            )
            beats = instance.get_daemon_heartbeats()
        times = sorted((run.start_time, run.end_time) for run in instance.get_run_records())
        assert times[0][1] < times[1][0]
        assert set(platform.status("decoded_waveforms").values()) == {"MATERIALIZED"}
    assert {"MONITORING", "EVENT_LOG_CONSUMER", "BACKFILL", "SENSOR"} <= beats.keys()
    assert not [beat.errors for beat in beats.values() if beat.errors]


def test_the_instance_has_the_limits_of_the_file(home: Home) -> None:
    with home.instance() as instance:
        pools = instance.get_concurrency_config().pool_config
        assert pools.default_pool_limit == 1
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        (limit,) = queue.tag_concurrency_limits
        assert limit["key"] == "dagster/backfill"
        assert limit["limit"] < queue.max_concurrent_runs, "a place is kept for runs outside backfills"
        assert instance.run_retries_enabled and instance.run_retries_max_retries == 2
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] == 30


def test_a_misspelt_key_in_the_file_is_an_error(home: Home) -> None:
    (home.folder / "dagster.yaml").write_text(DAGSTER_YAML.replace("max_concurrent_runs", "max_runs"))
    with pytest.raises(dg.DagsterInvalidConfigError, match="max_runs"), home.instance():
        pass


def test_a_missing_variable_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_POSTGRES_PASSWORD")
    with pytest.raises(dg.DagsterInvalidConfigError, match="DAGSTER_POSTGRES_PASSWORD"), home.instance():
        pass
