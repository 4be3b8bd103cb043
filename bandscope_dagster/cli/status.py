"""``bandscope status``: prints the state of all songs, or everything known about some songs."""

from typing import Final

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from bandscope_dagster.catalogs.song_catalog import unchanged_rows
from bandscope_dagster.errors import is_failure
from bandscope_dagster.pages.text import clock, megabytes, moment, visible
from bandscope_dagster.pipeline.upload_states import UploadState, state_of_upload, with_upload_states
from bandscope_dagster.pipeline.uploads import Listing
from bandscope_dagster.separation.quality import StemQuality
from bandscope_dagster.songs.facts import SongFacts, read_facts
from bandscope_dagster.songs.find import find_songs
from bandscope_dagster.songs.presence import PresentFrom
from bandscope_dagster.songs.status import Evidence, Status, read_evidence
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import ANALYSIS_TABLES, SONG_TABLES, SONGS, table_key
from bandscope_dagster.storage.tables.song_files import UPLOAD, SongFiles

SHOWN_INSTRUMENTS: Final = 5  # per source
COLUMNS: Final = ("song_id", "uploaded_at", "duration_s", "loudness_lufs")

SHORT_NAMES: Final = dict(
    zip((table.name for table in ANALYSIS_TABLES), ("waveform", "stems", "tags", "stem tags"), strict=True)
)
"""Short table names for the overview, so that a line with the longest song id fits into 80 columns."""


def print_overview(files: SongFiles, listing: Listing, console: Console) -> None:
    """Print a line for every song: its length, loudness and state.

    Songs with all results and unchanged files come from the catalog. Only the other songs are read. ``files`` must have
    the versions of all tables in ``SOURCES``.
    """
    if not len(files):
        console.print(
            "No song has been processed yet. `bandscope ingest` copies songs into the store; "
            "`bandscope run` processes them."
        )
        return
    known = unchanged_rows(files.store, files, (*COLUMNS, "status", "warning"))
    fine = known.filter(pl.col("status").is_in([Status.OK.value, Status.WARNING.value])).drop("status")
    others = files.of(files.song_ids.filter(~files.song_ids.is_in(fine["song_id"].implode())))
    rows = others.read(SONGS, lambda songs: songs.select(*COLUMNS, "error", "warning"))
    evidence = read_evidence(others, rows)
    unread = pl.DataFrame({"song_id": [song for song in evidence if song not in set(rows["song_id"])]})
    remarks = fine.select("song_id", "warning").iter_rows()
    evidence |= {song: Evidence(warning=warning) for song, warning in remarks if warning is not None}
    songs = pl.concat([fine, rows, unread], how="diagonal_relaxed").sort(
        "uploaded_at", "song_id", nulls_last=True
    )
    uploads = with_upload_states(files, listing).versions.select("song_id", UPLOAD)
    lost = dict(uploads.filter(pl.col(UPLOAD) != UploadState.PRESENT.value).iter_rows())
    grid = Grid(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("song", no_wrap=True, overflow="ignore")  # whole: users copy it into commands
    grid.add_column("length", no_wrap=True, justify="right")
    grid.add_column("LUFS", no_wrap=True, justify="right")
    grid.add_column("status", overflow="fold")
    for song_id, _, duration_s, loudness in songs.select(COLUMNS).iter_rows():
        state = evidence.get(song_id, Evidence())
        is_song = state.song_error is None
        length = clock(duration_s) if is_song and duration_s is not None else ""
        lufs = f"{loudness:.1f}" if is_song and loudness is not None else ""
        of_upload = f"; upload {lost[song_id]}" if song_id in lost else ""
        text = escape(visible(describe(state) + of_upload))
        is_bad = state.status in (Status.FAILED, Status.REJECTED)
        grid.add_row(song_id, length, lufs, f"[red]{text}[/red]" if is_bad else text)
    console.print(grid)


def print_songs(
    store: ObjectStore, console: Console, pattern: str, present_from: PresentFrom, *, paths: bool = False
) -> None:
    """Print everything known about the songs that match, one after another; with ``paths``, also of each file."""
    for song_id in find_songs(store, pattern):
        facts = read_facts(store, song_id, present_from)
        if facts is not None:  # None if it was deleted since
            _print_song(store, console, facts, paths=paths)


def describe(evidence: Evidence) -> str:
    """The status as in ``song_catalog``, and its cause in a few words: ``partial: no stems``."""
    status = evidence.status
    if status is Status.OK:
        return status
    if status is Status.WARNING:
        return f"{status}: {(evidence.warning or '').partition(';')[0]}"
    if status is Status.PARTIAL:
        return f"{status}: {_missing_results(evidence)}"
    if evidence.song_error is not None and is_failure(evidence.song_error):  # the cause of all later failures
        return f"{status}: {evidence.song_error.partition(':')[0]}"
    failed = [SHORT_NAMES.get(each.table, each.table) for each in evidence.failures]
    damaged = [f"{SHORT_NAMES.get(each.table, each.table)} damaged" for each in evidence.damaged]
    if failed or damaged:
        return f"{status}: {', '.join([*failed, *damaged])}"
    decisive = next(each for each in evidence.problems if not each.windows)
    return f"{status}: {decisive.reason or decisive.message}"


def _missing_results(evidence: Evidence) -> str:
    if len(evidence.missing) == len(ANALYSIS_TABLES):
        return "not analyzed"
    if evidence.missing:
        return f"no {', '.join(SHORT_NAMES[table] for table in evidence.missing)}"
    return "windows without tags" if any(each.windows for each in evidence.errors) else "out of date"


def _print_song(store: ObjectStore, console: Console, facts: SongFacts, *, paths: bool) -> None:
    row = facts.song
    song_id: str = row["song_id"]
    console.rule(escape(visible(row["title"] or row["filename"] or song_id)), align="left")
    _print_fact(console, "song", song_id)
    _print_fact(console, "status", describe(facts.evidence))
    if row["upload_key"] is not None:
        size, time = megabytes(row["size_bytes"]), moment(row["uploaded_at"])
        state = state_of_upload(store, song_id, row["upload_key"])
        lost = "" if state is UploadState.PRESENT else f"; {state}"
        _print_fact(console, "upload", f"{row['upload_key']}, {size}, {time}{lost}")
    if row["error"] is None and row["peak"] is not None:
        loudness = row["loudness_lufs"]
        _print_fact(
            console,
            "audio",
            f"{clock(row['duration_s'])}, {row['codec']}, {row['sample_rate']} Hz,"
            f" {row['channels']}-channel, peak {row['peak']:.3f},"
            f" {'too quiet for a loudness' if loudness is None else f'{loudness:.1f} LUFS'}",
        )
    if row["error"] is None and row["warning"] is not None:
        _print_fact(console, "warning", visible(row["warning"], 1000), style="yellow")
    _print_stems(console, facts)
    _print_instruments(console, facts)
    for reason, tables in _problems(facts.evidence).items():
        _print_fact(console, "problem", f"{', '.join(tables)}: {reason}", style="red")
    if not paths and facts.evidence.missing:
        _print_fact(console, "missing", ", ".join(facts.evidence.missing))
    for table in SONG_TABLES if paths else ():
        where = (
            "not computed" if table.name in facts.evidence.missing else store.uri(table_key(table, song_id))
        )
        console.print(f"  {table.name:22}{escape(where)}", highlight=False, soft_wrap=True)


def _problems(evidence: Evidence) -> dict[str, list[str]]:
    """Each reason, with the tables that have it; only ``songs`` for a reason that the other tables repeat from it."""
    found: dict[str, list[str]] = {}
    for problem in evidence.problems:
        tables = found.setdefault(f"{problem.windows_text}{visible(problem.error, 1000)}", [])
        if SONGS.name not in tables:
            tables.append(problem.table)
    return found


def _print_stems(console: Console, facts: SongFacts) -> None:
    """Print the separator and the residual, then a line for each stem, the strongest first."""
    if facts.quality is None:  # no stems, or a file from before the quality was measured
        return
    separator = facts.lineages["stems"].model
    residual_db = facts.quality.residual_db
    remark = "only these were computed" if residual_db is None else f"residual {residual_db:.1f} dB"
    _print_fact(console, "stems", f"by {separator}, {remark}")
    stems = sorted(facts.quality.stems, key=lambda stem: (-stem.share, stem.stem))
    width = max(len(stem.stem) for stem in stems)
    for stem in stems:
        line = f"{stem.stem:{width}} {stem.share:4.0%} of the energy, peak {stem.peak:.3f}"
        _print_fact(console, "", f"{line}{_loudness(stem)}")


def _loudness(stem: StemQuality) -> str:
    if stem.silent:
        return ", silent"
    return "" if stem.loudness_lufs is None else f", {stem.loudness_lufs:.1f} LUFS"


def _print_instruments(console: Console, facts: SongFacts) -> None:
    """Print the instruments that are present in each source, the best first, with their mean scores."""
    for source in dict.fromkeys(each.source for each in facts.instruments):
        found = [each for each in facts.instruments if each.source == source]
        best = sorted(
            found, key=lambda each: (each.score is None, -(each.score or 0.0), -each.seconds, each.name)
        )
        words = [each.name if each.score is None else f"{each.name} {each.score:.2f}" for each in best]
        _print_fact(console, "heard in", f"{source}: {', '.join(words[:SHOWN_INSTRUMENTS])}")


def _print_fact(console: Console, name: str, text: str, style: str | None = None) -> None:
    console.print(f"{name:9} {escape(text)}", highlight=False, style=style)
