"""``bandscope run --watch``: uploads become songs as they come, also while others are computed, and after kills."""

import base64
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from random import Random

import dagster as dg
import polars as pl
import pytest
from command_processes import variables
from command_server import Command, start_command
from daemon import Home, open_instance, wait_for
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from faulty_proxy import FaultyProxy
from instances import new_instance
from long_forms import quick_or_long
from platforms import PER_SONG, Platform, environment, local_settings, s3_settings, song_bytes
from s3_server import S3Server

from bandscope_dagster.cli import watch_runs
from bandscope_dagster.cli.result_posts import AT_THE_END_S
from bandscope_dagster.cli.watch_runs import SONGS_AT_ONCE, TOGETHER_S, WatchRuns
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.pool_turn import MODELS_POOL
from bandscope_dagster.orchestration.run_tags import WAITS_FOR_TAG

SONGS = quick_or_long(4, long=200)
KILLS = quick_or_long(1, long=5)
SEED = 27
STARTED = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])


def start_watch(home: Path, environment: dict[str, str]) -> Command:
    return start_command(["run", "--watch"], variables(home, home) | environment)


def is_done(platform: Platform, name: str) -> bool:
    """True if the last table of every song with this file name is in the store."""
    slug = name.partition(".")[0].replace(" ", "-")
    return any(Path(found.key).name.startswith(slug) for found in platform.store.list("stem_instrument_tags"))


def upload(platform: Platform, name: str, data: bytes) -> None:
    with platform.store.create(f"uploads/{name}") as pending:
        pending.write(data)


def stop(watching: Command) -> str:
    """End it as systemd or Ctrl-C does; returns its output."""
    watching.send_signal(signal.SIGINT)
    printed, _ = watching.communicate(600)
    assert watching.returncode == 0, printed
    return printed


def computed(platform: Platform, asset: str) -> Counter[str]:
    """Song → how often an asset was computed for it."""
    entries = platform.instance.fetch_materializations(dg.AssetKey(asset), limit=10_000).records
    events = [entry.asset_materialization for entry in entries]
    return Counter(event.partition for event in events if event and not event.metadata["reused"].value)


def test_uploads_become_songs_as_they_come_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    platform = Platform(local_settings(tmp_path / "store"), open_instance(home))
    upload(platform, "before.wav", song_bytes(0, 0.6))
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))  # and nothing listens there
    watching = start_watch(
        home,
        {
            "BANDSCOPE_STORAGE": str(tmp_path / "store"),
            "BANDSCOPE_SETTLE_S": "5",
            "BANDSCOPE_RESULT_WEBHOOK": f"http://127.0.0.1:{taken.getsockname()[1]}",
            "BANDSCOPE_RESULT_WEBHOOK_SECRET": "whsec_" + base64.b64encode(bytes(32)).decode(),
        },
    )
    wait_for("the song from before is done", lambda: is_done(platform, "before.wav"))
    uploads = tmp_path / "store" / "uploads" / "mia"
    uploads.mkdir()
    growing = uploads / "grows.wav"

    def other_is_done() -> bool:
        os.utime(growing)  # its time changes, as while `cp` writes it
        return is_done(platform, "whole.wav")

    with growing.open("wb") as file:
        data = song_bytes(1, 0.6)
        file.write(data[: len(data) // 2])
        file.flush()
        upload(platform, "broken.wav", b"RIFF, and no more")
        upload(platform, "whole.wav", song_bytes(2, 0.6))
        wait_for("the other song is done", other_is_done, every_s=0.2)
        file.write(data[len(data) // 2 :])
    wait_for("the slow copy is done", lambda: is_done(platform, "grows.wav"))
    catalog = tmp_path / "store" / "song_catalog" / "song_catalog.parquet"
    wait_for("the catalog has all", lambda: catalog.exists() and len(pl.read_parquet(catalog)) == 4)
    asked = time.monotonic()
    printed = stop(watching)
    assert time.monotonic() - asked < AT_THE_END_S, "it waits for the receiver"
    taken.close()

    assert "1 song, 1 of them to compute." in printed
    assert printed.count("Connection refused") == 1
    for name in ("before.wav", "whole.wav", "grows.wav"):
        assert f"done      {name} after " in printed
    assert "rejected  broken.wav: " in printed
    assert printed.rstrip().endswith(
        "Stopped. Finished songs are kept, and the next start continues with the rest."
    )
    statuses = dict(pl.read_parquet(catalog).select("filename", "status").iter_rows())
    assert statuses == {"before.wav": "ok", "whole.wav": "ok", "grows.wav": "ok", "broken.wav": "rejected"}
    for asset in PER_SONG:
        assert set(platform.status(asset).values()) == {"MATERIALIZED"}
    assert all(run.is_finished for run in platform.instance.get_runs())
    assert max(computed(platform, "stems").values()) == 1


def test_with_faulty_storage_and_kills_every_song_is_computed_once(
    tmp_path: Path, s3_server: S3Server, faulty_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long form: `pytest --long tests/integration/test_cli_watch.py -k faulty`."""
    monkeypatch.setattr("faulty_proxy.SILENT_S", 1.0)  # else each such call costs the client's patience
    home, fate = tmp_path / "home", Random(SEED)
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    place = s3_server.place(faulty_proxy.endpoint)
    platform = Platform(s3_settings(replace(place, endpoint=s3_server.endpoint)), open_instance(home))
    faulty = environment(s3_settings(place)) | {"BANDSCOPE_STEP_RETRY_DELAY_S": "0.5"}
    faulty_proxy.fail_at_random(0.1, seed=SEED)
    watching = start_watch(home, faulty)
    left = SONGS
    for kill in range(KILLS + 1):
        share = left // (KILLS + 1 - kill)
        for number in range(SONGS - left, SONGS - left + share):
            upload(platform, f"song {number:03}.wav", song_bytes(number, 0.6))
            time.sleep(fate.uniform(0, 0.3))
        left -= share
        if kill < KILLS:
            wait_for("a run has begun", lambda: platform.instance.get_runs_count(STARTED))
            time.sleep(fate.uniform(0, 2.0))
            watching.kill()
            watching.communicate(60)
            watching = start_watch(home, faulty)

    def all_done() -> bool:
        return watching.poll() is not None or len(list(platform.store.list("stem_instrument_tags"))) == SONGS

    wait_for("all songs are done", all_done, 600.0 + 10 * SONGS, every_s=1)
    assert watching.poll() is None, watching.communicate(60)
    faulty_proxy.heal()

    def is_complete() -> bool:
        if platform.store.head("song_catalog/song_catalog.parquet") is None:
            return False
        return list(platform.table("song_catalog")["status"]) == ["ok"] * SONGS

    wait_for("the catalog has all songs, as they are at the end", is_complete, every_s=1)
    stop(watching)
    for asset in PER_SONG:
        assert Counter(platform.status(asset).values()) == {"MATERIALIZED": SONGS}
        # A kill between the last file of a song and its event makes the next run keep the file.
        assert max(computed(platform, asset).values()) == 1, asset
    assert all(run.is_finished for run in platform.instance.get_runs())


@pytest.mark.long
def test_a_backfill_and_the_sensor_beside_it_share_the_songs_and_the_one_place_of_the_pool(
    tmp_path: Path,
) -> None:
    sensors = {"TEST_SENSORS": "new_uploads catalogs"}
    home = Home.make(tmp_path / "home", tmp_path / "store", songs_per_run=2, variables=sensors)
    platform = Platform(local_settings(tmp_path / "store"), open_instance(home.folder))
    watching = start_watch(home.folder, dict(home.environment))
    with home.daemon(), home.webserver() as ui:
        for number in range(6):
            upload(platform, f"song {number}.wav", song_bytes(number, 0.6))
            if number == 2:
                wait_for("songs are registered", lambda: platform.songs)
                first = platform.songs
                ui.launch_backfill(PER_SONG, first)

        def is_settled() -> bool:
            done = [song for song, state in platform.status(PER_SONG[-1]).items() if state == "MATERIALIZED"]
            runs = platform.instance.get_runs()
            backfilled = [run for run in runs if "dagster/backfill" in run.tags]
            return len(done) == 6 and bool(backfilled) and all(run.is_finished for run in runs)

        wait_for("every run ends", is_settled, 1200.0, every_s=1)
        stop(watching)
    runs = platform.instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert not [run for run in runs if run.tags.get("dagster/sensor_name") == "new_uploads"]
    for song, times in computed(platform, "stems").items():
        assert times == 1 or song in first, "a backfill computes again what was done before it was requested"
    uses: list[tuple[float, float, str]] = []  # of the pool, by each run that did not wait in it for another
    for run in runs:
        logs = platform.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        at = [log.timestamp for log in logs if log.step_key == "analyze"]
        if at and WAITS_FOR_TAG not in run.tags:
            uses.append((min(at), max(at), run.tags.get("bandscope/launched-by", "daemon")))
    uses.sort()
    assert all(end < begin for (_, end, _), (begin, *_) in pairwise(uses)), uses


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with new_instance() as instance:
        yield instance


def test_one_run_takes_the_oldest_songs_and_another_those_that_came_late(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(watch_runs, "monotonic", lambda: now)
    runs = WatchRuns(instance, SimpleQueue())
    order = [f"song-{number:02}" for number in range(20)]
    for song in order:  # as files are copied
        runs.came([song])
        now += TOGETHER_S / 5
    now += TOGETHER_S
    first = runs.next_songs(order, order, 64)
    assert first == tuple(order[:SONGS_AT_ONCE])
    pending = order[SONGS_AT_ONCE:]
    assert runs.next_songs(order, pending, 64) == (), "this place is for a song that comes later"
    for late in ("late-1", "late-2", "late-3"):
        runs.came([late])
        order, pending = [*order, late], [*pending, late]
    assert runs.next_songs(order, pending, 64) == ("late-1", "late-2")
    pending = [song for song in pending if song not in ("late-1", "late-2")]
    assert runs.next_songs(order, pending, 64) == (), "two runs at once, and no third"
    runs.over(first)
    assert runs.next_songs(order, pending, 64) == ("late-3",), (
        "every other turn, while the place beside is taken"
    )
    pending.remove("late-3")
    runs.over(("late-3",))
    assert runs.next_songs(order, pending, 64) == tuple(pending[:SONGS_AT_ONCE])


def test_some_late_songs_that_come_together_do_not_wait_for_the_batch(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(watch_runs, "monotonic", lambda: now)
    runs, batch = WatchRuns(instance, SimpleQueue()), [f"song-{number:02}" for number in range(32)]
    late = [f"late-{number}" for number in range(SONGS_AT_ONCE + 3)]
    runs.came(batch)
    first = runs.next_songs(batch, batch, 64)
    now = 2 * TOGETHER_S
    for song in late:
        runs.came([song])
        now += 0.5
    order, pending = [*batch, *late], [*batch[SONGS_AT_ONCE:], *late]
    assert runs.next_songs(order, pending, 64) == ("late-0", "late-1")
    pending = [song for song in pending if song not in ("late-0", "late-1")]
    runs.over(first)
    assert runs.next_songs(order, pending, 64) == ("late-2", "late-3"), (
        "five wait: every other turn is theirs"
    )
    pending = [song for song in pending if song not in ("late-2", "late-3")]
    runs.over(("late-2", "late-3"))
    assert runs.next_songs(order, pending, 64) == tuple(batch[4:8]), "and the batch goes on"


def test_a_song_that_comes_while_another_is_computed_does_not_wait(instance: dg.DagsterInstance) -> None:
    runs = WatchRuns(instance, SimpleQueue())
    runs.came(["one"])
    assert runs.next_songs(["one"], ["one"], 64) == ("one",)
    runs.came(["two"])
    assert runs.next_songs(["one", "two"], ["two"], 64) == ("two",)


def test_where_the_pool_has_one_place_the_oldest_and_the_late_songs_alternate(
    instance: dg.DagsterInstance,
) -> None:
    instance.event_log_storage.set_concurrency_slots(MODELS_POOL, 1)
    runs, order = WatchRuns(instance, SimpleQueue()), [f"song-{number:02}" for number in range(20)]
    runs.came(order)  # the others come later
    order += ["late-1", "late-2", "late-3"]
    pending, taken = list(order), []
    for _ in range(6):
        taken.append(runs.next_songs(order, pending, 2))
        assert runs.next_songs(order, pending, 2) == ()
        runs.over(taken[-1])
        pending = [song for song in pending if song not in taken[-1]]
    batches = [tuple(order[at : at + 2]) for at in (0, 2, 4, 6)]
    assert taken == [batches[0], ("late-1", "late-2"), batches[1], ("late-3",), *batches[2:]]


def test_a_queued_run_of_the_daemon_gets_the_second_place(instance: dg.DagsterInstance) -> None:
    @dg.job
    def queued() -> None: ...

    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repository").get_job_origin(
        "queued"
    )
    instance.create_run_for_job(queued, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin)
    runs, order = WatchRuns(instance, SimpleQueue()), ["one", "two", "three"]
    assert runs.next_songs(order, order, 1) == ("one",)
    assert runs.next_songs(order, order[1:], 1) == ()
    instance.event_log_storage.set_concurrency_slots(MODELS_POOL, 1)
    runs.over(("one",))
    assert runs.gives_way_s
    assert runs.next_songs(order, order[1:], 1) == (), "the one place is left to the daemon for a moment"
