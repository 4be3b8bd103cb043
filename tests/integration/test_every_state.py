"""Every state that a song can be in, and every place that shows it: all of them agree."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from page_songs import PRESENT_FROM, noise, store_song
from rich.console import Console
from song_rows import lineage, song_row, tag_row

from assets.checks import analysis_checks
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.catalogs.song_catalog import song_catalog
from bandscope_dagster.catalogs.song_errors import song_errors
from bandscope_dagster.cli.lineage import print_lineage
from bandscope_dagster.cli.status import print_overview, print_songs
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.exporting.song import read_song
from bandscope_dagster.pages.checks_view import checks_view
from bandscope_dagster.pages.index_page import write_index
from bandscope_dagster.pages.page_folder import PageFolder
from bandscope_dagster.pages.song_page import write_page
from bandscope_dagster.pipeline.failures import FailureLog
from bandscope_dagster.pipeline.outcomes import SongAnalyzed
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES, SongPlan
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.songs.facts import read_facts
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.songs.stored_files import StoredFile
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS, STEMS, TABLES, table_key
from bandscope_dagster.storage.tables.song_files import list_song_files
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table

State = Callable[[ObjectStore, str], object]
NO_SPACE = "failed: OSError: no space left on device"


def analyzed(store: ObjectStore, song: str) -> None:
    store_song(store, song, {"vocals": noise(1), "drums": noise(1, seed=1)})


def with_errors(song_error: str | None, passed_on: str) -> State:
    """A row in ``songs``, and in every analysis table the row that passes its error on."""

    def make(store: ObjectStore, song: str) -> None:
        write_table(store, SONGS, [song_row(song, error=song_error)], lineage(song))
        for table in ANALYSIS_TABLES:
            write_error_row(store, TABLES[table], song, f"upstream: {passed_on}", lineage(song))

    return make


def without_stems(store: ObjectStore, song: str) -> None:
    analyzed(store, song)
    store.delete(table_key(STEMS, song))


def lost_window(store: ObjectStore, song: str) -> None:
    lost = tag_row(song, None, None, 0.0) | {"error": "unparseable: no list"}
    store_song(store, song, {"vocals": noise(1)}, [lost])


def rejected_by_the_analysis(store: ObjectStore, song: str) -> None:
    analyzed(store, song)
    write_error_row(store, STEMS, song, "not_finite: the stems are not finite", lineage(song))


def failed(*tables: str, error: str = NO_SPACE) -> State:
    def make(store: ObjectStore, song: str) -> None:
        FailureLog(store, "run").failed(song, tables, error)

    return make


def both(*steps: State) -> State:
    def make(store: ObjectStore, song: str) -> None:
        for step in steps:
            step(store, song)

    return make


def only_a_row(store: ObjectStore, song: str) -> None:
    write_table(store, SONGS, [song_row(song)], lineage(song))


def cut(table: str) -> State:
    """The file of a table ends in its middle, as after a power cut on a disk that reports writes too early."""

    def make(store: ObjectStore, song: str) -> None:
        key = table_key(TABLES[table], song)
        content = store.read(key)
        with store.create(key) as pending:
            pending.write(content[: len(content) * 6 // 10])

    return make


UNAVAILABLE = "unavailable: the storage did not answer"

DOUBT = "2 packets are damaged; 0.14 s of silence are in place of lost audio"


def with_a_warning(store: ObjectStore, song: str) -> None:
    """All results are there, and its audio was damaged."""
    analyzed(store, song)
    row = song_row(song, bad_packets=2, lost_s=0.14, warning=DOUBT)
    write_table(store, SONGS, [row], lineage(song))


def with_a_warning_alone(store: ObjectStore, song: str) -> None:
    """A damaged upload that was not analyzed yet."""
    write_table(store, SONGS, [song_row(song, bad_packets=2, lost_s=0.14, warning=DOUBT)], lineage(song))


STATES: dict[str, tuple[State, str, str]] = {
    # song: how it comes about, its status, and the words of `bandscope status`
    "ok": (analyzed, "ok", "ok"),
    "warned": (with_a_warning, "warning", "warning: 2 packets are damaged"),
    "warned-new": (with_a_warning_alone, "partial", "partial: not analyzed"),
    "warned-failed": (both(with_a_warning, failed("stems")), "failed", "failed: stems"),
    "new": (only_a_row, "partial", "partial: not analyzed"),
    "no-stems": (without_stems, "partial", "partial: no stems"),
    "lost-window": (lost_window, "partial", "partial: windows without tags"),
    "out-of-date": (with_errors(None, "empty: no bytes"), "partial", "partial: out of date"),
    "rejected": (with_errors("empty: no bytes", "empty: no bytes"), "rejected", "rejected: empty"),
    "rejected-later": (rejected_by_the_analysis, "rejected", "rejected: not_finite"),
    "failed-new": (
        both(only_a_row, failed("stems", "instrument_tags")),
        "failed",
        "failed: stems, tags",
    ),
    "failed-upload": (
        both(with_errors(UNAVAILABLE, UNAVAILABLE), failed("stems", error=UNAVAILABLE)),
        "failed",
        "failed: unavailable",
    ),
    "unavailable": (with_errors(UNAVAILABLE, UNAVAILABLE), "failed", "failed: unavailable"),
    "failed-no-row": (failed("songs"), "failed", "failed: songs"),
    "failed-over-older": (both(analyzed, failed("stems")), "failed", "failed: stems"),
    "damaged-stems": (both(analyzed, cut("stems")), "failed", "failed: stems damaged"),
    "damaged-tags": (both(analyzed, cut("instrument_tags")), "failed", "failed: tags damaged"),
    "damaged-row": (both(analyzed, cut("songs")), "failed", "failed: songs damaged"),
}
STATUSES = {song: status for song, (_, status, _) in STATES.items()}
WORDS = {song: words for song, (_, _, words) in STATES.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """Every state on a local disk, and the catalogs over them."""
    store = open_store(str(tmp_path_factory.mktemp("store")))
    for song, (make, _, _) in STATES.items():
        make(store, song)
    list(refresh(store, [song_catalog(PRESENT_FROM, "1"), song_errors("1")]))
    return store


def catalog(store: ObjectStore, name: str) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(store.read(f"{name}/{name}.parquet")))


def printed(show: Callable[[Console], object]) -> str:
    text = io.StringIO()
    show(Console(file=text, width=200))
    return text.getvalue()


def overview(store: ObjectStore) -> dict[str, str]:
    """Song → status, of the lines of ``bandscope status``. No song of this store has its upload."""
    header, _, *lines = printed(
        lambda console: print_overview(list_song_files(store, SOURCES), list_uploads(store), console)
    ).splitlines()
    assert all(line.strip().endswith("; upload gone") for line in lines), lines
    return {
        line.split()[0]: line[header.index("status") :].strip()[: -len("; upload gone")] for line in lines
    }


def test_the_catalog_has_every_song_with_its_status(store: ObjectStore) -> None:
    assert dict(catalog(store, "song_catalog").select("song_id", "status").iter_rows()) == STATUSES


def test_the_overview_has_every_song_with_its_status_and_cause(store: ObjectStore) -> None:
    assert overview(store) == WORDS


def test_the_overview_needs_no_catalog_and_believes_none_that_is_older_than_a_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for song, (make, _, _) in STATES.items():
        make(store, song)
    assert overview(store) == WORDS
    list(refresh(store, [song_catalog(PRESENT_FROM, "1")]))
    failed("stems")(store, "ok")
    store.delete(table_key(SONGS, "lost-window"))
    assert overview(store) == {song: words for song, words in WORDS.items() if song != "lost-window"} | {
        "ok": "failed: stems"
    }


@pytest.mark.parametrize("song", STATES)
def test_a_song_alone_has_the_same_status_everywhere(store: ObjectStore, song: str, tmp_path: Path) -> None:
    facts = read_facts(store, song, PRESENT_FROM)
    assert facts is not None and facts.status == STATUSES[song]

    details = printed(lambda console: print_songs(store, console, song, PRESENT_FROM))
    assert f"status    {WORDS[song]}\n" in details

    origin = json.loads(printed(lambda console: print_lineage(store, console, song, as_json=True)))
    assert origin["status"] == STATUSES[song]

    pages = PageFolder(open_store(str(tmp_path)), folder="")
    page = write_page(store, pages, song, PRESENT_FROM)
    assert page.status == STATUSES[song]
    html = (tmp_path / f"{song}.html").read_text()
    assert f'<span class="status {STATUSES[song]}">' in html
    write_index(pages)
    assert [each.status for each in pages.summaries()] == [STATUSES[song]]


@pytest.mark.parametrize("song", STATES)
def test_every_problem_is_in_song_errors_on_the_page_and_in_the_details(
    store: ObjectStore, song: str
) -> None:
    facts = read_facts(store, song, PRESENT_FROM)
    assert facts is not None
    problems = {
        (each.table, each.windows_text + each.message, each.reason) for each in facts.evidence.problems
    }
    rows = catalog(store, "song_errors").filter(pl.col("song_id") == song)
    each_table = rows.explode("tables", "messages")
    assert set(each_table.select("tables", "messages", "reason").iter_rows()) == problems
    assert rows["reason"].is_unique().all(), "one row per song and reason"
    first = {(each.table, each.stage) for each in facts.evidence.problems}
    assert set(rows.select("table", "stage").iter_rows()) <= first
    details = printed(lambda console: print_songs(store, console, song, PRESENT_FROM))
    of_songs = facts.evidence.song_error
    for problem in facts.evidence.problems:
        # One line for each reason, with its tables; only "songs" where the other tables repeat its reason.
        table = "songs" if problem.error == of_songs else rf"(?:[\w, ]+, )?{problem.table}(?:, [\w, ]+)?"
        assert re.search(rf"^problem   {table}: .*{re.escape(problem.message[:30])}", details, re.M)
    assert len(re.findall("^problem", details, re.M)) == len(
        {(each.windows, each.error) for each in facts.evidence.problems}
    )
    assert (song in ("ok", "warned", "warned-new", "new", "no-stems")) == (not problems)


@pytest.mark.parametrize("song", STATES)
def test_a_warning_is_in_the_catalog_in_the_details_and_on_the_page(
    store: ObjectStore, song: str, tmp_path: Path
) -> None:
    warned = song.startswith("warned")
    [row] = catalog(store, "song_catalog").filter(pl.col("song_id") == song).to_dicts()
    assert row["warning"] == (DOUBT if warned else None)
    details = printed(lambda console: print_songs(store, console, song, PRESENT_FROM))
    assert (f"warning   {DOUBT}" in details) == warned
    facts = read_facts(store, song, PRESENT_FROM)
    assert facts is not None
    damage = [
        line["outcome"] for line in checks_view(facts) if line["name"].startswith("The audio may be damaged")
    ]
    assert damage == (["warned"] if warned else [])
    assert "The audio is undamaged" not in [line["name"] for line in checks_view(facts)]
    write_page(store, PageFolder(open_store(str(tmp_path)), folder=""), song, PRESENT_FROM)
    assert (DOUBT in (tmp_path / f"{song}.html").read_text()) == warned


PASSED = ("is usable", "is undamaged", "can be read", "stems add up", "are complete")


@pytest.mark.parametrize("song", STATES)
def test_the_sentence_of_a_check_is_true_for_its_outcome(store: ObjectStore, song: str) -> None:
    facts = read_facts(store, song, PRESENT_FROM)
    assert facts is not None
    for line in checks_view(facts):
        assert any(said in line["name"] for said in PASSED) == (line["outcome"] == "passed"), line


@pytest.mark.parametrize("song", STATES)
def test_a_song_exports_where_its_stems_are_whole_and_else_the_error_has_its_status(
    store: ObjectStore, song: str
) -> None:
    if song in ("ok", "warned", "warned-failed", "lost-window", "failed-over-older", "damaged-tags"):
        assert "vocals" in read_song(store, song).stems
    elif song != "damaged-row":  # without the row there is no name for a folder
        with pytest.raises(BandscopeError) as refused:
            read_song(store, song)
        assert f"({STATUSES[song]})" in str(refused.value) or song in ("new", "warned-new", "no-stems")


@pytest.mark.parametrize(
    ("residual_db", "outcome"), [(-200.0, "passed"), (-20.0, "passed"), (-19.9, "warned")]
)
def test_a_residual_is_judged_alike_in_dagster_and_on_the_page(
    store: ObjectStore, residual_db: float, outcome: str
) -> None:
    facts = read_facts(store, "ok", PRESENT_FROM)
    assert facts is not None and facts.quality is not None
    quality = SeparationQuality(residual_db, facts.quality.stems)
    [on_page] = [line for line in checks_view(replace(facts, quality=quality)) if "add up" in line["name"]]
    stored = StoredFile(lineage("ok"), {}, 44_100, ())
    plan = SongPlan("ok", "ab" * 32, "uploads/a.wav", 1.0, {"stems": lineage("ok")}, {})
    made = SongAnalyzed(plan, {}, 1.0, quality=quality, read_back={"stems": stored})
    [in_dagster] = [
        each for each in analysis_checks(made, "stems", None) if each.check_name == "stems_sum_to_mixture"
    ]
    assert on_page["outcome"] == outcome
    assert (in_dagster.passed, in_dagster.severity.value) == (outcome == "passed", "WARN")
