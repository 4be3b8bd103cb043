"""``bandscope run --watch`` while its disk is full, its records fail, or its uploads were copied."""

import io
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg
import pytest
from platforms import Platform, local_settings, song_bytes
from rich.console import Console
from small_disks import ROOT_ONLY, fill, small_disk
from sqlalchemy.exc import OperationalError

from bandscope_dagster.cli import songs_again, watch, watch_runs
from bandscope_dagster.cli.execute_run import RunReport
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.threaded_instance import threaded_instance

LOCKED = OperationalError("SELECT 1", {}, sqlite3.OperationalError("database is locked"))


class House(Platform):
    """A platform with a watch in this process, over ``songs`` alone; its runs use the platform's settings."""

    def run(self, _: dg.DagsterInstance, assets: Sequence[str], tags: Mapping[str, str]) -> RunReport:
        songs = "songs" in assets
        result = self.materialize(["songs"], tags=tags) if songs else self.materialize_catalogs()
        problems = [
            str(event.step_failure_data.user_failure_data) for event in result.get_step_failure_events()
        ]
        return RunReport(result.run_id, result.success, False, problems)

    def watch(self, monkeypatch: pytest.MonkeyPatch, at_each_look: Callable[[], object]) -> str:
        """Watch until ``at_each_look`` raises KeyboardInterrupt; returns what was printed."""
        monkeypatch.setattr(watch_runs, "run_to_end", self.run)
        monkeypatch.setattr(songs_again, "FIRST_WAIT_S", 0.2)
        monkeypatch.setattr(watch, "FAULT_WAIT_S", 0.1)
        monkeypatch.setattr(watch, "LOCAL_LOOK_EVERY_S", 0.2)
        look = watch.list_uploads

        def listed(*args: object) -> object:
            at_each_look()
            return look(*args)

        printed = io.StringIO()
        console = Console(file=printed, width=200)
        home = Path(self.instance.root_directory)
        watching = watch._Watch(self.settings, self.store, self.instance, console, home, ["songs"])
        watching.begin(with_space_check=False)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(watch, "list_uploads", listed)
            watching.go_on()
        for thread in watching._runs._threads.values():
            thread.join()
        return printed.getvalue()

    @property
    def done(self) -> bool:
        return bool(self.songs) and set(self.status("songs").values()) == {"MATERIALIZED"}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with threaded_instance() as instance:
        yield House(local_settings(tmp_path / "store", settle_s=0), instance)


def until(done: Callable[[], bool], looks: int = 600) -> Iterator[None]:
    """Ends a watch when it is ``done``; fails after many looks."""
    for _ in range(looks):
        if done():
            break
        yield
    else:
        pytest.fail("it never came")
    raise KeyboardInterrupt


@ROOT_ONLY
def test_songs_of_a_full_disk_wait_until_it_has_room(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "store", "600k") as disk:
        (disk / "uploads").mkdir()
        (disk / "uploads" / "song.wav").write_bytes(song_bytes(1, 0.6))
        runs: list[int] = []
        ballast = None

        def look() -> None:
            nonlocal ballast
            if not runs:
                ballast = fill(disk)
            runs.append(len(house.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))))
            if len(runs) == 20:
                ballast.unlink()
            next(looks)

        looks = until(lambda: house.done and len(runs) > 20)
        printed = house.watch(monkeypatch, look)
    assert runs[19] >= 1 and "No space left on device" in printed
    assert runs[19] <= 2, "while the disk is full, no run is started in vain"
    assert "The disk is full: 1 song waits until it has room." in printed
    assert "given up" not in printed


def test_a_song_is_given_up_in_words(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.upload({"one.wav": song_bytes(1, 0.6)})
    monkeypatch.setattr(songs_again, "ATTEMPTS", 3)
    monkeypatch.setattr(watch, "ATTEMPTS", 3)
    (Path(house.settings.storage) / "songs").write_text("a file in the place of the folder")
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    after = iter(range(10))
    looks = until(lambda: len(house.instance.get_runs(failed)) >= 3 and next(after, None) is None)
    printed = house.watch(monkeypatch, lambda: next(looks))
    assert "given up  one.wav: 3 runs failed; the next start tries it again" in printed
    assert len(house.instance.get_runs(failed)) == 3


def test_faults_of_the_records_lose_no_song(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them comes once or twice, at the worst moment."""
    real = dg.DagsterInstance.get_dynamic_partitions
    faults = iter([False, True, True] + [False] * 10_000)  # in `begin`, and after songs were registered

    def partitions(instance: dg.DagsterInstance, *names: str) -> Sequence[str]:
        if watched and next(faults):
            raise LOCKED
        return real(instance, *names)

    watched = False
    states, ends = watch.song_states, iter([True] + [False] * 10_000)

    def song_states(*args: object) -> object:
        if next(ends):
            raise LOCKED
        return states(*args)

    report, failures = House.run, iter([True] + [False] * 10_000)

    def run(self: House, *args: object) -> RunReport:
        if next(failures):
            raise LOCKED
        return report(self, *args)

    monkeypatch.setattr(dg.DagsterInstance, "get_dynamic_partitions", partitions)
    monkeypatch.setattr(watch, "song_states", song_states)
    monkeypatch.setattr(House, "run", run)
    looks = until(lambda: house.done)

    def look() -> None:
        nonlocal watched
        path = Path(house.settings.storage) / "uploads" / "song.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(song_bytes(1, 0.6))
        watched = False
        next(looks)
        watched = True

    printed = house.watch(monkeypatch, look)
    assert printed.count("New uploads cannot be taken now: database is locked") == 1, (
        "once, though it failed twice"
    )
    assert "A run: OperationalError" in printed


def test_copied_uploads_are_not_taken_for_new_songs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.upload({f"{number}.wav": song_bytes(number, 0.6) for number in range(3)})
    assert house.materialize(["songs"]).success
    uploads = Path(house.settings.storage) / "uploads"
    looks = iter(range(1000))

    def look() -> None:
        number = next(looks)
        if number == 1:
            for path in uploads.iterdir():
                os.utime(path, (1, 1))
        if number == 4:
            shutil.rmtree(uploads)
            uploads.mkdir()
            (uploads / "new.wav").write_bytes(song_bytes(9, 0.6))
        if len(house.songs) == 4 and house.done:
            raise KeyboardInterrupt

    printed = house.watch(monkeypatch, look)
    assert printed.count("3 of 3 uploads are songs that this store has under other ids") == 1
    assert len(house.songs) == 4, "the next new song is taken"
