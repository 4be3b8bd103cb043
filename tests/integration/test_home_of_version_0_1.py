"""A Dagster home, a cursor and a deployment of version 0.1 start under this version, and no song is computed again."""

import importlib
import importlib.metadata
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from command_processes import bandscope, finish
from daemon import open_instance
from platforms import PER_SONG, Platform, local_settings

from bandscope_dagster.definitions import defs
from bandscope_dagster.event_log import SqliteEventLog
from bandscope_dagster.orchestration.partitions import song_states
from bandscope_dagster.orchestration.sensors.new_uploads import Cursor
from bandscope_dagster.settings import Settings

ARCHIVE = Path(__file__).parents[1] / "data" / "store-and-home-0.1.tar.xz"
DONE = [
    "cut-a72fd4ab4547",
    "good-one-72c4106187e3",
    "good-two-ef072d113ad7",
    "not-audio-edd812c56558",
]
VANISHED = "vanished-0b927e33370e"  # its upload was deleted before it was analyzed

# Names in deploy/, workspace.yaml and docs of version 0.1.
NAMES = ["bandscope_dagster.definitions.defs", "bandscope_dagster.event_log.SqliteEventLog"]
VARIABLES = (
    "storage s3_endpoint s3_region s3_access_key_id s3_secret_access_key separator tagger device executor gpus "
    "shifts overlap segment_s precision batch tag_window_s tag_hop_s tag_batch tag_mode models_folder songs_per_run "
    "step_retries step_retry_delay_s flac_bits present_from alert_webhook ui_url max_upload_bytes min_duration_s "
    "max_duration_s max_sample_rate max_channels max_tag_bytes max_picture_bytes max_decode_memory_mb "
    "max_decode_cpu_s max_decode_silence_s"
)
COMMANDS = "ingest run retry status sql lineage export report vocabulary doctor models"
JOBS = "process_songs validate_songs tag_songs separate_songs write_pages refresh_catalogs retry_songs"
SENSORS = "new_uploads refresh_catalogs_after_runs alert_on_failure"


@dataclass(frozen=True)
class Old:
    """The store and the home of version 0.1 in a folder of one test."""

    folder: Path

    @property
    def store(self) -> Path:
        """The store's folder."""
        return self.folder / "store"

    @property
    def home(self) -> Path:
        """Dagster's home."""
        return self.folder / "home"

    def run(self, *arguments: str) -> str:
        """The output of a ``bandscope`` command, which must succeed."""
        return finish(bandscope(self.store, self.home, *arguments))

    def files(self) -> dict[str, int]:
        """The modification time (ns) of every file of the finished songs."""
        found = [path for table in PER_SONG for path in (self.store / table).iterdir()]
        return {str(path): os.stat(path).st_mtime_ns for path in found if path.stem in DONE}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive's folder, with its times, which song ids depend on."""
    folder = tmp_path_factory.mktemp("version-0.1")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(extracted: Path, tmp_path: Path) -> Old:
    """A copy for one test."""
    shutil.copytree(extracted, tmp_path / "copy", copy_function=shutil.copy2)
    return Old(tmp_path / "copy")


@pytest.fixture
def instance(old: Old) -> Iterator[dg.DagsterInstance]:
    """The instance of the home, whose dagster.yaml names the event log by its old module."""
    assert "module: bandscope_dagster.event_log\n" in (old.home / "dagster.yaml").read_text()
    with open_instance(old.home) as opened:
        yield opened


def test_the_home_opens_with_its_runs_events_and_songs(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.event_log_storage, SqliteEventLog)
    runs = instance.get_runs()
    assert [run.status for run in runs].count(dg.DagsterRunStatus.SUCCESS) == 3
    assert [run.status for run in runs].count(dg.DagsterRunStatus.FAILURE) == 1
    assert all(instance.all_logs(run.run_id) for run in runs)
    assert list(instance.get_dynamic_partitions("songs")) == [*DONE, VANISHED]
    assert song_states(instance, [*DONE, VANISHED], PER_SONG).unfinished == {VANISHED}


def test_status_shows_every_song(old: Old) -> None:
    printed = old.run("status")
    assert all(song in printed for song in [*DONE, VANISHED])


def test_run_computes_no_finished_song_again(old: Old) -> None:
    before = old.files()
    assert len(before) == len(DONE) * len(PER_SONG)
    assert "The catalogs are missing, damaged or out of date" in old.run("run", "--songs", "good*")
    assert "songs are done" in old.run("run", "--songs", "good*"), "the catalogs have the new columns"
    command = bandscope(old.store, old.home, "run")
    printed, _ = command.communicate(timeout=300)
    assert command.returncode == 0 and "Leaving out 1 song (" in printed and "the upload is gone" in printed
    assert old.files() == before


def test_run_says_that_songs_have_tags_of_the_old_default_and_tags_them_anew_when_asked(old: Old) -> None:
    before = old.files()
    tags = "instrument_tags,stem_instrument_tags"
    printed = old.run("run", "--songs", "good*")
    assert old.files() == before
    assert "another tagger than bandscope-instruments, which is chosen: 2 by musicnn" in printed
    assert f"`bandscope run --recompute --select {tags}` tags them anew" in printed
    assert "2 by musicnn" in old.run("status")
    printed = old.run("run", "--songs", "good*", "--recompute", "--select", tags)
    assert "another tagger" not in printed and "another tagger" not in old.run("status")
    changed = {Path(path) for path, time in old.files().items() if time != before[path]}
    assert {path.parent.name for path in changed} == set(tags.split(","))
    assert {path.stem for path in changed} == {song for song in DONE if song.startswith("good")}


def test_a_run_over_all_songs_reuses_the_finished_ones(old: Old, instance: dg.DagsterInstance) -> None:
    before = old.files()
    instance.delete_dynamic_partition("songs", VANISHED)
    platform = Platform(local_settings(old.store, tagger="musicnn"), instance)  # the default of version 0.1
    result = platform.materialize(reuse=True)
    assert result.success and old.files() == before
    for asset in PER_SONG:
        events = platform.events(result.run_id, asset)
        assert {song: event.metadata["reused"].value for song, event in events.items()} == dict.fromkeys(
            DONE, True
        )


@pytest.mark.parametrize("text", ['{"last_song":"good-two-ef072d113ad7","requested":5}', "{}"])
def test_a_cursor_of_the_old_sensor_is_read(text: str) -> None:
    cursor = Cursor.parse(text)
    assert cursor == (
        Cursor(last_song="good-two-ef072d113ad7", requested=5) if "requested" in text else Cursor()
    )
    assert Cursor.parse(cursor.model_dump_json()) == cursor


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_configuration_of_version_0_1_exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_the_jobs_and_sensors_keep_their_names() -> None:
    assert {job.name for job in defs.jobs or ()} >= set(JOBS.split())
    assert {sensor.name for sensor in defs.sensors or ()} >= set(SENSORS.split())


def test_every_setting_of_version_0_1_exists() -> None:
    assert set(VARIABLES.split()) <= Settings.model_fields.keys()


def test_the_command_and_its_commands_exist() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="bandscope")
    commands = script.load()
    assert callable(commands)
    app = importlib.import_module(script.value.partition(":")[0]).app
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert names | {group.name for group in app.registered_groups} >= set(COMMANDS.split())
