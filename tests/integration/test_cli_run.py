"""``bandscope run`` refuses impossible requests before it starts a run."""

import time
from pathlib import Path

import command_processes
import dagster as dg
import pytest
from command_line import CommandLine
from command_processes import finish
from dagster._daemon.types import DaemonHeartbeat
from platforms import song_bytes

from bandscope_dagster.definitions import defs
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.orchestration.home import dagster_home
from bandscope_dagster.orchestration.partitions import register_uploads
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.storage.objects.open_store import open_store


@pytest.fixture
def bandscope(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> CommandLine:
    folder = tmp_path_factory.mktemp("platform")
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(folder / "store"))
    monkeypatch.setenv("BANDSCOPE_MODELS_FOLDER", str(folder / "models"))
    monkeypatch.setenv("BANDSCOPE_SEPARATOR", "htdemucs_ft")
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "dagster"))
    return CommandLine(monkeypatch, capsys)


def test_missing_weights_are_reported_before_a_run_starts(bandscope: CommandLine) -> None:
    done = bandscope("run")
    assert done.code == 1
    for file in find_model("htdemucs_ft").files:
        assert f"{file.name} of model htdemucs_ft is missing" in done.err and file.sha256 in done.err
    assert "bandscope models pull htdemucs_ft" in done.err
    assert "uploads" not in done.out


def test_assets_that_need_no_weights_do_not_ask_for_them(bandscope: CommandLine) -> None:
    done = bandscope("run", "--select", "songs,decoded_waveforms,instrument_tags")
    assert "there are no uploads" in done.err


def test_an_unknown_model_is_an_error_that_names_its_setting(
    bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANDSCOPE_SEPARATOR", "demucs")
    done = bandscope("run")
    assert done.code == 1
    assert "BANDSCOPE_SEPARATOR='demucs' is unknown; choose one of spleeter-2stems, htdemucs" in done.err


def test_songs_in_runs_of_a_living_daemon_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    store = open_store(str(tmp_path / "store"))
    for seed, name in enumerate(("queued.wav", "free.wav")):
        with store.create(f"uploads/{name}") as pending:
            pending.write(song_bytes(seed, 0.6))

    def run() -> str:
        # In its own process: the assets read their settings when they are imported.
        return finish(
            command_processes.bandscope(tmp_path / "store", dagster_home(), "run", "--select", "songs")
        )

    dagster_home()
    with dg.DagsterInstance.get() as instance:
        queued, free = register_uploads(instance, list_uploads(store))
        instance.create_run_for_job(
            defs.resolve_job_def("validate_songs"), tags={"dagster/partition": queued}
        )

        def beat() -> None:  # before each run: a busy machine may take minutes for one
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "a daemon"))

        beat()
        assert "Skipping 1 song (" in run()
        assert instance.get_materialized_partitions(dg.AssetKey("songs")) == {free}
        beat()
        assert "All other songs are done" in run()

        instance.wipe_daemon_heartbeats()  # the daemon is dead, and so is its run
        assert "Skipping" not in run()
        assert instance.get_materialized_partitions(dg.AssetKey("songs")) == {free, queued}


def test_the_last_lines_count_the_songs_of_this_run_and_the_others_apart(tmp_path: Path) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    uploads = store / "uploads"
    uploads.mkdir(parents=True)
    (uploads / "broken.wav").write_bytes(b"RIFF, and no more")
    (uploads / "good.wav").write_bytes(song_bytes(1, 0.6))
    printed = finish(command_processes.bandscope(store, home, "run"))
    assert "1 song done, 1 rejected; `bandscope status` shows why." in printed
    assert "Other songs" not in printed
    (uploads / "better.wav").write_bytes(song_bytes(2, 0.6))
    printed = finish(command_processes.bandscope(store, home, "run"))
    assert "1 song done." in printed
    assert "Other songs in the store: 1 rejected; `bandscope status` shows why." in printed
    (uploads / "third.wav").write_bytes(song_bytes(3, 0.6))
    printed = finish(command_processes.bandscope(store, home, "run", "--select", "songs"))
    assert "1 song done." in printed, "of the tables that were asked for"
    assert "Other songs in the store: 1 rejected;" in printed
