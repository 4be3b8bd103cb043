"""``bandscope results`` and its iterators: each song of each run once, after every cursor, in any order of events."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from audio_files import encode, excerpt
from command_line import CommandLine
from instances import new_instance
from platforms import ASSETS, Platform, keys, local_settings, song_bytes
from postgres import run_postgres
from sqlalchemy import create_engine, text

from bandscope_dagster import results
from bandscope_dagster.orchestration import song_results
from bandscope_dagster.orchestration.finished_songs import FinishedSongs
from bandscope_dagster.orchestration.lost_songs import ATTEMPTS
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.result_cursor import Cursor
from bandscope_dagster.orchestration.run_tags import ATTEMPT_TAG, RANGE_END_TAG, RANGE_START_TAG
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore

TAGGED = ["songs", "instrument_tags"]


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform after one run over a real song, a text file, and two songs whose uploads are gone."""
    folder = tmp_path_factory.mktemp("store")
    with new_instance() as instance:
        platform = Platform(local_settings(folder), instance)
        song = encode(excerpt(), "flac", "flac", tags={"title": "Night Bus"})
        uploads = {"ada/night bus.flac": song, "letter.wav": b"Dear Ada, " * 99}
        platform.upload(uploads | {"gone.wav": song_bytes(1, 0.6), "lost.wav": song_bytes(2, 0.6)})
        for name in ("gone.wav", "lost.wav"):
            (folder / "uploads" / name).unlink()
        assert not platform.materialize(TAGGED).success
        yield platform


@pytest.fixture
def platform(processed: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A copy of it for one test."""
    store = tmp_path_factory.mktemp("copy") / "store"
    shutil.copytree(processed.settings.storage, store)
    with new_instance(like=processed.instance.root_directory) as instance:
        yield Platform(local_settings(store), instance)


@pytest.fixture
def bandscope(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    monkeypatch.setenv("BANDSCOPE_STORAGE", platform.settings.storage)
    monkeypatch.setenv("DAGSTER_HOME", platform.instance.root_directory)
    return CommandLine(monkeypatch, capsys)


def all_of(platform: Platform, after: str | None = None) -> list[results.SongResult]:
    return list(results.stored(after, settings=platform.settings))


def test_each_song_of_a_run_has_one_result_with_what_a_consumer_needs(platform: Platform) -> None:
    found = {song.filename or song.song_id[:4]: song for song in all_of(platform)}
    assert len(all_of(platform)) == len(found) == 4
    good, letter, gone = found["night bus.flac"], found["letter.wav"], found["gone"]
    assert (good.status, good.error, good.tables) == ("ok", None, tuple(TAGGED))
    assert good.upload_key == "uploads/ada/night bus.flac" and len(good.song_hash or "") == 64
    assert {heard.source for heard in good.instruments} == {"mixture"}
    assert good.detected_at is not None and good.detected_at <= good.finished_at
    assert letter.status == "rejected" and (letter.error or "").startswith("not_audio: ")
    assert gone.status == "failed" and (gone.error or "").startswith("unavailable: ")
    assert not letter.instruments and not gone.instruments
    (run,) = platform.instance.get_runs()
    assert {song.run_id for song in found.values()} == {run.run_id}


def test_another_store_gives_no_song_a_status_that_it_does_not_have(
    platform: Platform, bandscope: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = next(song for song in all_of(platform) if song.filename == "letter.wav")
    (Path(platform.settings.storage) / f"songs/{letter.song_id}.parquet").unlink()
    (lost,) = [song for song in all_of(platform) if song.song_id == letter.song_id]
    assert lost.status == "failed" and (lost.error or "").startswith("missing: ")
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(tmp_path / "nowhere"))
    empty = bandscope("results")
    assert empty.code == 1 and "has neither uploads nor songs" in empty.err and not empty.out


def test_after_each_cursor_come_exactly_the_results_that_follow_it(platform: Platform) -> None:
    found = all_of(platform)
    assert [song.status for song in found] == ["rejected", "ok", "failed", "failed"]
    for number, song in enumerate(found, 1):
        assert all_of(platform, song.cursor) == found[number:]
    assert all_of(platform, results.START) == found


def test_the_command_prints_what_the_iterator_yields(platform: Platform, bandscope: CommandLine) -> None:
    found = all_of(platform)
    lines = bandscope("results", "--json", "--after", found[0].cursor).out.splitlines()
    assert lines == [song.to_json() for song in found[1:]]
    good = json.loads(lines[0])
    assert (good["version"], good["event"], good["status"]) == (1, "song.done", "ok")
    assert good["finished_at"].endswith("Z") and good["instruments"][0]["source"] == "mixture"
    shown = bandscope("results").out.splitlines()
    assert [line.split()[:3] for line in shown] == [[s.cursor, s.status, s.song_id] for s in found]
    assert "not_audio" in shown[0]


def test_the_python_of_the_docs_prints_each_result(
    platform: Platform, bandscope: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    (code,) = re.findall(r"^```python\n(from bandscope_dagster.*?)^```$", page, re.DOTALL | re.MULTILINE)
    exec(code, {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in printed] == [
        [song.cursor, song.song_id, song.status] for song in all_of(platform)
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--after", "yesterday"], "'yesterday' is no cursor"),
        (["--after", "999999.1"], "is beyond"),
        (["--follow", "--after", "1.999999"], "leave the cursor out"),
        (["--after", "1.1.999999-2"], "is beyond"),
        (["--after", "1.1", "--all"], "exclude each other"),
    ],
)
def test_a_cursor_that_cannot_be_used_is_an_error(
    arguments: list[str], said: str, bandscope: CommandLine
) -> None:
    ended = bandscope("results", *arguments)
    assert ended.code != 0 and said in " ".join(ended.err.split()) and not ended.out


def test_a_follower_gets_the_next_result_also_after_an_error_of_the_store(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    following = results.follow(settings=platform.settings)  # begins now, not at the first next()
    known = all_of(platform)
    platform.materialize(TAGGED, reuse=True)
    tables = Path(platform.settings.storage) / "songs"
    row = next(tables.glob("night*.parquet"))
    content = row.read_bytes()
    row.unlink()
    row.mkdir()  # reading it is an error of the disk

    def repair(_: float) -> None:
        if row.is_dir():
            row.rmdir()
            row.write_bytes(content)

    monkeypatch.setattr(song_results.time, "sleep", repair)
    news = [next(following) for _ in range(4)]
    assert {(song.song_id, song.status) for song in news} == {(s.song_id, s.status) for s in known}
    assert {song.run_id for song in news}.isdisjoint(song.run_id for song in known)
    assert "is tried again" in caplog.text


def test_the_store_is_opened_once_for_all_results(
    platform: Platform, bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_store = Settings.open_store

    def noted(settings: Settings) -> ObjectStore:
        opened.append(settings.storage)
        return open_store(settings)

    looks = iter(range(3))

    def wait(_: float) -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(Settings, "open_store", noted)
    monkeypatch.setattr(song_results.time, "sleep", wait)
    with pytest.raises(KeyboardInterrupt):
        list(results.follow(results.START))
    assert len(opened) == 1
    bandscope("results")
    assert len(opened) == 2


def test_a_run_that_fails_as_a_whole_fails_the_songs_that_it_did_not_finish(
    platform: Platform, tmp_path: Path
) -> None:
    settings = platform.settings.model_copy(update={"separator": "htdemucs", "models_folder": str(tmp_path)})
    before = all_of(platform)[-1].cursor
    assert not Platform(settings, platform.instance).materialize(["stems"]).success
    found = all_of(platform, before)
    assert {song.status for song in found} == {"failed"} and len(found) == 4
    assert all("bandscope models pull htdemucs" in (song.error or "") for song in found)


def test_a_run_that_died_or_was_interrupted_has_no_failed_songs_unless_it_was_the_last_attempt(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = platform.instance
    job = dg.Definitions(
        assets=ASSETS,
        jobs=[dg.define_asset_job("work", keys(TAGGED))],
        resources=resources(platform.settings),
    ).resolve_job_def("work")
    before = all_of(platform)[-1].cursor
    covered = {RANGE_START_TAG: platform.songs[0], RANGE_END_TAG: platform.songs[1]}
    for attempt in (1, ATTEMPTS - 1):
        tags = covered | {ATTEMPT_TAG: str(attempt), "dagster/max_retries": "0"}
        instance.report_run_failed(instance.create_run_for_job(job, tags=tags))
    with monkeypatch.context() as patch:
        patch.setattr("bandscope_dagster.pipeline.analyze.analyze_batch", interrupted)
        assert not platform.materialize(["instrument_tags"]).success
    assert all_of(platform, before) == []

    repeated = instance.create_run_for_job(job, tags=covered | {ATTEMPT_TAG: str(ATTEMPTS)})
    instance.report_run_failed(repeated)  # Dagster starts it again
    assert all_of(platform, before) == []
    tags = covered | {ATTEMPT_TAG: str(ATTEMPTS), "dagster/max_retries": "0"}
    last = instance.create_run_for_job(job, tags=tags)
    instance.report_run_failed(last)
    found = all_of(platform, before)
    assert [song.song_id for song in found] == sorted(platform.songs[:2])
    assert all(song.status == "failed" and "process died" in (song.error or "") for song in found)


def test_each_failed_song_of_a_run_is_a_place_to_continue_also_after_an_error(
    platform: Platform, tmp_path: Path
) -> None:
    settings = platform.settings.model_copy(update={"separator": "htdemucs", "models_folder": str(tmp_path)})
    before = all_of(platform)[-1].cursor
    for _ in range(2):
        assert not Platform(settings, platform.instance).materialize(["stems"]).success
    songs = sorted(platform.songs)
    expected = [(run.run_id, song) for run in reversed(platform.instance.get_runs(limit=2)) for song in songs]
    found = all_of(platform, before)
    assert [(song.run_id, song.song_id) for song in found] == expected and len(expected) == 8
    for number, song in enumerate(found, 1):
        assert all_of(platform, song.cursor) == found[number:]

    reader, seen = FinishedSongs(platform.instance, Cursor.parse(before)), list[tuple[str, str]]()
    for _ in expected:
        for song in reader.new():
            if seen[-1:] == [(song.run_id, song.song_id)]:
                continue  # it was used before the error, and comes again
            seen.append((song.run_id, song.song_id))
            break  # as by an error in the code that uses the song
    assert seen == expected


def test_results_come_in_the_order_of_time_whether_songs_failed_or_not(tmp_path: Path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({f"{number}.wav": song_bytes(number, 0.6) for number in range(2)})
        blocked = tmp_path / "songs"
        for fails in (True, False, True, False):
            if fails:
                blocked.rename(tmp_path / "away") if blocked.exists() else None
                blocked.write_text("a file in the place of the folder")
            else:
                blocked.unlink()
            assert platform.materialize(["songs"]).success is not fails
        found = all_of(platform)
        assert [song.status for song in found] == ["failed", "failed", "ok", "ok"] * 2
        assert [song.finished_at for song in found] == sorted(song.finished_at for song in found)
        for number, song in enumerate(found, 1):
            assert all_of(platform, song.cursor) == found[number:]


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_with_postgresql_an_event_that_becomes_visible_late_is_not_left_out(tmp_path: Path) -> None:
    with run_postgres() as server:
        database = server.database()
        url = f"postgresql+psycopg2://{database.user}:{database.password}@{database.host}:{database.port}/{database.name}"
        with dg.instance_for_test({"storage": {"postgres": {"postgres_url": url}}}) as instance:
            platform = Platform(local_settings(tmp_path), instance)
            platform.upload({f"song {number}.wav": song_bytes(number, 0.6) for number in range(3)})
            assert platform.materialize(["songs"]).success
            reader = FinishedSongs(instance, Cursor())
            engine = create_engine(url)
            with engine.connect() as late:
                # The first event in the state between its number and its commit: not visible yet.
                row = late.execute(
                    text("DELETE FROM event_logs WHERE id = (" + FIRST + ") RETURNING *")
                ).one()
                late.commit()
                names, values = ", ".join(row._fields), ", ".join(f":{name}" for name in row._fields)
                late.execute(text(f"INSERT INTO event_logs ({names}) VALUES ({values})"), row._asdict())
                seen = list(reader.new())
                assert [song.song_id for song in seen] == platform.songs[1:]
                late.commit()
            engine.dispose()
            assert [song.song_id for song in reader.new()] == platform.songs[:1]
            assert list(reader.new()) == []
            restarted = FinishedSongs(instance, Cursor.parse(seen[-1].cursor))
            assert [song.song_id for song in restarted.new()] == platform.songs[:1]


FIRST = "SELECT min(id) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
