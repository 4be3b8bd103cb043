"""Dagster's event log with its connections kept open: the same records, also from several threads and processes."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from daemon import open_instance
from dagster._core.storage.event_log import SqliteEventLogStorage

from bandscope_dagster.orchestration.event_log import KEPT_OPEN, SqliteEventLog
from bandscope_dagster.orchestration.home import DAGSTER_YAML

DEFAULT_YAML = "telemetry:\n  enabled: false\n"
KEYS = [f"song-{number}" for number in range(5)]
SONGS = dg.DynamicPartitionsDefinition(name="songs")
CHECK = dg.AssetCheckSpec("fine", asset="stems", partitions_def=SONGS)

WRITER = """
import sys, dagster as dg
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    for number in range(40):
        instance.report_runless_asset_event(dg.AssetMaterialization("shared", partition=f"{sys.argv[2]}-{number}"))
"""


@dg.multi_asset(
    specs=[dg.AssetSpec("stems", skippable=True)],
    check_specs=[CHECK],
    can_subset=True,
    partitions_def=SONGS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def stems(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Reports its songs one by one, and fails at the end."""
    for number, key in enumerate(context.partition_keys):
        yield dg.AssetMaterialization("stems", partition=key, metadata={"number": number})
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("stems"), check_name="fine", partition=key, passed=number != 2
        )
    raise dg.Failure("one song failed", allow_retries=False)


def home(folder: Path, yaml: str) -> dg.DagsterInstance:
    """An instance in a new home."""
    folder.mkdir()
    (folder / "dagster.yaml").write_text(yaml)
    return open_instance(folder)


def run(instance: dg.DagsterInstance) -> str:
    """One run over all songs; returns its id."""
    instance.add_dynamic_partitions("songs", KEYS)
    tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}
    return dg.materialize([stems], instance=instance, tags=tags, raise_on_error=False).run_id


def recorded(instance: dg.DagsterInstance, run_id: str) -> dict[str, Any]:
    """The answers of an event log to the questions that people and Dagster ask."""
    log = instance.event_log_storage
    statuses = instance.get_status_by_partition(dg.AssetKey("stems"), KEYS, SONGS) or {}
    checks = log.get_asset_check_execution_history(CHECK.key, limit=100)
    return {
        "events": [
            (entry.dagster_event_type, entry.dagster_event.partition if entry.dagster_event else None)
            for entry in instance.all_logs(run_id)
        ],
        "statuses": {key: status.value for key, status in statuses.items() if status},
        "checks": sorted((check.partition, check.status.value) for check in checks),
        "latest": instance.get_latest_materialization_event(dg.AssetKey("stems")).asset_materialization,
        "keys": instance.get_asset_keys(),
    }


def test_its_records_equal_those_of_dagsters_own(tmp_path: Path) -> None:
    with home(tmp_path / "ours", DAGSTER_YAML) as ours, home(tmp_path / "theirs", DEFAULT_YAML) as theirs:
        assert isinstance(ours.event_log_storage, SqliteEventLog)
        assert not isinstance(theirs.event_log_storage, SqliteEventLog)
        found, expected = recorded(ours, run(ours)), recorded(theirs, run(theirs))
    assert len(found["events"]) > 3 * len(KEYS)
    assert found == expected


def test_a_home_can_switch_between_the_two(tmp_path: Path) -> None:
    with home(tmp_path / "home", DEFAULT_YAML) as before:
        run_id = run(before)
        expected = recorded(before, run_id)
    (tmp_path / "home" / "dagster.yaml").write_text(DAGSTER_YAML)
    with open_instance(tmp_path / "home") as during:
        assert recorded(during, run_id) == expected
        second = run(during)
        expected = recorded(during, second)
    (tmp_path / "home" / "dagster.yaml").write_text(DEFAULT_YAML)
    with open_instance(tmp_path / "home") as after:
        assert recorded(after, second) == expected


def test_threads_and_processes_write_at_once(tmp_path: Path) -> None:
    with home(tmp_path / "home", DAGSTER_YAML) as instance:
        environment = os.environ | {"DAGSTER_HOME": str(tmp_path / "home")}
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path / "home"), name],
                env=environment,
                stderr=subprocess.PIPE,
            )
            for name in ("a", "b")
        ]

        def write(name: str) -> None:
            for number in range(40):
                key = f"{name}-{number}"
                instance.report_runless_asset_event(dg.AssetMaterialization("shared", partition=key))

        threads = [threading.Thread(target=write, args=(name,)) for name in ("c", "d")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for writer in writers:
            _, printed = writer.communicate(timeout=300)
            assert writer.returncode == 0, printed.decode()
        found = instance.get_materialized_partitions(dg.AssetKey("shared"))
        assert found == {f"{name}-{number}" for name in "abcd" for number in range(40)}


def test_the_databases_of_a_few_runs_stay_open(tmp_path: Path) -> None:
    with home(tmp_path / "home", DAGSTER_YAML) as instance:
        runs = [run(instance) for _ in range(KEPT_OPEN + 3)]
        for run_id in runs:
            assert instance.all_logs(run_id)
        open_files = {os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
        databases = {path for path in open_files if path.startswith(str(tmp_path)) and path.endswith(".db")}
        shards = {path for path in databases if Path(path).parent.name == "runs" and Path(path).stem in runs}
        assert 0 < len(shards) <= KEPT_OPEN


def test_creating_one_leaves_the_environment_alone(tmp_path: Path) -> None:
    before = dict(os.environ)
    with home(tmp_path / "home", DAGSTER_YAML) as instance:
        run(instance)
    assert dict(os.environ) == before


def test_everything_can_be_wiped(tmp_path: Path) -> None:
    with home(tmp_path / "home", DAGSTER_YAML) as instance:
        run_id = run(instance)
        instance.event_log_storage.wipe()
        assert instance.all_logs(run_id) == []
        again = run(instance)
        assert recorded(instance, again)["statuses"] == dict.fromkeys(KEYS, "MATERIALIZED")


def test_songs_are_read_again_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = SqliteEventLogStorage.get_dynamic_partitions

    def counting(self: SqliteEventLogStorage, partitions_def_name: str) -> Any:
        reads.append(partitions_def_name)
        return read(self, partitions_def_name)

    monkeypatch.setattr(SqliteEventLogStorage, "get_dynamic_partitions", counting)
    monkeypatch.setattr(SqliteEventLogStorage, "has_dynamic_partition", None)  # a statement for each song
    with home(tmp_path / "home", DAGSTER_YAML) as ours, open_instance(tmp_path / "home") as theirs:
        ours.add_dynamic_partitions("songs", KEYS[:2])
        for _ in range(3):
            assert ours.get_dynamic_partitions("songs") == KEYS[:2]
        ours.report_runless_asset_event(dg.AssetMaterialization("stems", partition=KEYS[0]))
        ours.get_dynamic_partitions("songs").append("a caller may change its list")
        assert ours.get_dynamic_partitions("songs") == KEYS[:2] and len(reads) == 1
        theirs.add_dynamic_partitions("songs", KEYS[2:3])
        assert ours.get_dynamic_partitions("songs") == KEYS[:3] and len(reads) == 2
        assert ours.has_dynamic_partition("songs", KEYS[2]) and len(reads) == 2
        # SQLite gives the id of a deleted row to the next row: another song.
        theirs.delete_dynamic_partition("songs", KEYS[2])
        theirs.add_dynamic_partitions("songs", KEYS[3:4])
        assert not ours.has_dynamic_partition("songs", KEYS[2]) and ours.has_dynamic_partition(
            "songs", KEYS[3]
        )
        assert ours.get_dynamic_partitions("songs") == [*KEYS[:2], KEYS[3]]
        ours.delete_dynamic_partition("songs", KEYS[0])
        ours.add_dynamic_partitions("songs", KEYS[4:])
        assert ours.get_dynamic_partitions("songs") == [KEYS[1], KEYS[3], KEYS[4]]
        assert ours.get_dynamic_partitions("others") == []
        for number in range(2 * KEPT_OPEN):  # the connection is closed and opened again
            ours.all_logs(f"a run of no events {number}")
        theirs.add_dynamic_partitions("songs", KEYS[2:3])
        assert ours.get_dynamic_partitions("songs") == [KEYS[1], KEYS[3], KEYS[4], KEYS[2]]
