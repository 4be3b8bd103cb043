"""``bandscope history`` lists the versions of the catalogs, and ``bandscope sql --as-of`` reads one."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from catalog_songs import CATALOGS, remove
from command_line import CommandLine
from song_rows import lineage, song_row

from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_tables import write_table


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def bandscope(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: ObjectStore
) -> CommandLine:
    monkeypatch.setenv("BANDSCOPE_STORAGE", store.url)
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def refreshed(store: ObjectStore) -> ObjectStore:
    """A store whose catalogs have two versions: of a and b, and of b with another title, and c."""
    for song in ("a", "b"):
        write_table(store, SONGS, [song_row(song, title="first")], lineage(song))
    [*refresh(store, CATALOGS)]
    remove(store, "a")
    for song in ("b", "c"):
        write_table(store, SONGS, [song_row(song, title="second")], lineage(song))
    [*refresh(store, CATALOGS)]
    return store


def versions(bandscope: CommandLine, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in bandscope("history", "--json", *arguments).out.splitlines()]


def test_each_version_has_its_refresh_its_time_and_what_it_changed(
    refreshed: ObjectStore, bandscope: CommandLine
):
    newest, first = versions(bandscope, "song_catalog")
    assert newest["catalog"] == "song_catalog" and newest["number"] == 1
    assert [newest[name] for name in ("songs", "added", "changed", "removed")] == [2, 1, 1, 1]
    assert [first[name] for name in ("songs", "added", "changed", "removed")] == [2, 2, 0, 0]
    assert len(newest["refresh_id"]) == 32 and newest["kept"]
    lines = bandscope("history", "song_catalog").out.splitlines()
    assert lines[0] == f"song_catalog: {refreshed.uri('delta/song_catalog')}"
    assert (
        lines[1].startswith("  version 1  2")
        and "made from 2 songs: 1 added, 1 changed, 1 removed" in lines[1]
    )
    assert newest["refresh_id"] in lines[1] and lines[2].startswith("  version 0  ")


def test_the_newest_versions_can_be_asked_for_and_no_older_commit_is_read(
    refreshed: ObjectStore, bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch
):
    every = versions(bandscope, "song_catalog")
    seen: list[str] = []
    read = LocalStore.read
    monkeypatch.setattr(LocalStore, "read", lambda self, key: seen.append(key) or read(self, key))
    assert versions(bandscope, "song_catalog", "--last", "1") == every[:1]
    assert [key for key in seen if key.endswith(".json")] == [f"delta/song_catalog/_delta_log/{1:020}.json"]
    assert len(versions(bandscope, "--last", "9")) == 2 * len(CATALOGS)
    assert bandscope("history", "--last", "0").code == 2


def test_without_a_name_all_catalogs_are_listed(refreshed: ObjectStore, bandscope: CommandLine):
    found = [(each["catalog"], each["number"]) for each in versions(bandscope)]
    assert found == [
        (name, n) for name in ("song_catalog", "instrument_catalog", "song_errors") for n in (1, 0)
    ]


def test_a_store_without_catalogs_says_so(bandscope: CommandLine):
    shown = bandscope("history")
    assert shown.code == 0 and "song_catalog: no versions yet; `bandscope run` makes one" in shown.out


def test_another_name_is_refused_with_the_catalogs(bandscope: CommandLine):
    refused = bandscope("history", "songs")
    assert (
        refused.code == 1 and "the catalogs are song_catalog, instrument_catalog, song_errors" in refused.err
    )


def test_a_damaged_table_is_an_error_that_names_it(refreshed: ObjectStore, bandscope: CommandLine):
    for found in list(refreshed.list("delta/song_errors/_delta_log")):
        with refreshed.create(found.key) as pending:
            pending.write(b"{")
    refused = bandscope("history", "song_errors")
    assert refused.code == 1 and "delta/song_errors" in refused.err and "bandscope run" in refused.err


def titles(bandscope: CommandLine, as_of: str) -> list[list[str]]:
    query = "SELECT song_id, title FROM song_catalog ORDER BY song_id"
    shown = bandscope("sql", query, "--as-of", as_of, "--format", "csv")
    assert shown.code == 0, shown.err
    return [line.split(",") for line in shown.out.splitlines()[1:]]


def test_a_query_as_of_a_time_reads_the_version_of_that_time(refreshed: ObjectStore, bandscope: CommandLine):
    newest, first = (
        datetime.fromisoformat(each["committed_at"]) for each in versions(bandscope, "song_catalog")
    )
    assert titles(bandscope, f"{newest + timedelta(seconds=1):%FT%T%z}") == [["b", "second"], ["c", "second"]]
    shown = f"{newest:%F %T} UTC"  # as `history` prints it, without the fraction of the second
    assert f"{shown}  made from 2 songs" in bandscope("history", "song_catalog").out
    assert titles(bandscope, shown) == [["b", "second"], ["c", "second"]]
    if f"{first:%F %T} UTC" != shown:
        assert titles(bandscope, f"{first:%F %T}") == [["a", "first"], ["b", "first"]]


@pytest.mark.parametrize("text", ["tomorrow", "2026-02-30", "12"])
def test_text_that_is_no_time_is_refused_with_examples(
    text: str, refreshed: ObjectStore, bandscope: CommandLine
):
    refused = bandscope("sql", "SELECT 1", "--as-of", text)
    assert refused.code == 2
    assert f"'{text}' is no time; give one such as 2026-03-02" in " ".join(
        refused.err.replace("│", " ").split()
    )


def test_a_time_without_a_version_is_an_error_with_the_oldest_one(
    refreshed: ObjectStore, bandscope: CommandLine
):
    query = "SELECT song_id FROM song_catalog"
    refused = bandscope("sql", query, "--as-of", "2020-01-01")
    assert refused.code == 1
    assert "song_catalog as of 2020-01-01 00:00:00 UTC" in refused.err
    assert "the oldest version that is kept is of" in refused.err


def test_a_table_without_versions_is_refused_with_those_that_have_some(
    refreshed: ObjectStore, bandscope: CommandLine
):
    now = datetime.now(UTC).isoformat()
    refused = bandscope("sql", "SELECT song_id FROM songs", "--as-of", now)
    assert refused.code == 1
    assert "The tables with versions are: song_catalog, instrument_catalog, song_errors" in refused.err
    answered = bandscope("sql", "SELECT count(*) AS songs FROM song_catalog", "--as-of", now)
    assert answered.code == 0 and "2" in answered.out


def test_a_time_to_come_is_refused_because_its_answer_would_change(
    refreshed: ObjectStore, bandscope: CommandLine
):
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%F}T23:00"
    refused = bandscope("sql", "SELECT song_id FROM song_catalog", "--as-of", tomorrow)
    assert refused.code == 1 and "is in the future" in refused.err
