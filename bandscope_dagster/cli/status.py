"""``bandscope status``: what the tables say of all songs, or of one song in full."""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, cast

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table as Grid

from bandscope_dagster.errors import BandscopeError, has_failed
from bandscope_dagster.separation.quality import SeparationQuality, StemQuality
from bandscope_dagster.songs.query import query
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, read_note
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    INSTRUMENT_TAGS,
    SONG_FAILURES,
    SONG_ID,
    SONG_TABLES,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
    Table,
    table_key,
)
from bandscope_dagster.storage.tables.song_tables import read_table

SHOWN_INSTRUMENTS: Final = 5  # per source

SHORT_NAMES: Final = dict(
    zip((table.name for table in ANALYSIS_TABLES), ("waveform", "stems", "tags", "stem tags"), strict=True)
)
"""What the overview calls the tables, so that a line fits a terminal of 80 columns beside the longest song id."""


class NoSuchSong(BandscopeError):
    """Nothing that the tables know matches."""


def is_called(pattern: str, *names: str | None) -> bool:
    """Whether one of ``names`` is ``pattern`` itself, which may hold brackets, or matches it as a glob."""
    return any(name is not None and (name == pattern or fnmatchcase(name, pattern)) for name in names)


def find_songs(store: ObjectStore, pattern: str) -> list[str]:
    """The ids of the songs whose id, file name or title is ``pattern`` or matches it as a glob.

    Raises:
        NoSuchSong: there are none.
    """
    if SONG_ID.fullmatch(pattern) and store.head(table_key(SONGS, pattern)) is not None:
        return [pattern]  # without a look at every other song
    songs = query(store, "SELECT song_id, filename, title FROM songs ORDER BY uploaded_at, song_id")
    found = [row[0] for row in songs.iter_rows() if is_called(pattern, *row)]
    if not found:
        raise NoSuchSong(f"no song matches {pattern!r}; `bandscope status` lists all of them")
    return found


def print_overview(store: ObjectStore, console: Console) -> None:
    """Every song in a line: its length, loudness, and how far it got."""
    songs = query(
        store,
        "SELECT song_id, duration_s, loudness_lufs, error FROM songs ORDER BY uploaded_at, song_id",
    )
    failures = _failures(store)
    if not songs.height and not failures:
        console.print(
            "No song has been through a run yet: `bandscope ingest` copies songs into the uploads, "
            "and `bandscope run` takes them from there."
        )
        return
    stored = store.fingerprints([table.name for table in ANALYSIS_TABLES])
    grid = Grid(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("song", no_wrap=True, overflow="ignore")  # to be copied into the next command
    grid.add_column("length", no_wrap=True, justify="right")
    grid.add_column("LUFS", no_wrap=True, justify="right")
    grid.add_column("state", overflow="fold")
    for song_id, duration_s, loudness, error in songs.iter_rows():
        lacking = [
            SHORT_NAMES[table.name]
            for table in ANALYSIS_TABLES
            if f"{song_id}.parquet" not in stored[table.name]
        ]
        length = _minutes(duration_s) if error is None else ""
        lufs = f"{loudness:.1f}" if error is None and loudness is not None else ""
        grid.add_row(song_id, length, lufs, _state(error, failures.pop(song_id, []), lacking))
    for song_id, tables in failures.items():  # not even the row that says what it is could be written
        grid.add_row(song_id, "", "", _state(None, tables, []))
    console.print(grid)


def print_songs(store: ObjectStore, console: Console, pattern: str) -> None:
    """All that is known of the songs that match, one after another."""
    for song_id in find_songs(store, pattern):
        _print_song(store, console, song_id)


def _failures(store: ObjectStore) -> dict[str, list[str]]:
    """Song → the tables that the last run could not make."""
    rows = query(store, 'SELECT song_id, "table" FROM song_failures')
    return {
        str(song): list(tables)
        for song, tables in rows.group_by("song_id").agg("table").sort("song_id").iter_rows()
    }


def _state(error: str | None, failed: Collection[str], lacking: Collection[str]) -> str:
    if error is not None:
        reason = escape(error.partition(":")[0])
        return f"[red]{reason}[/red]" if has_failed(error) else f"[red]rejected: {reason}[/red]"
    if failed:
        return f"[red]failed: {', '.join(SHORT_NAMES.get(table, table) for table in failed)}[/red]"
    if len(lacking) == len(ANALYSIS_TABLES):
        return "not analyzed"
    return f"no {', '.join(lacking)}" if lacking else "done"


def _print_song(store: ObjectStore, console: Console, song_id: str) -> None:
    row = _rows(store, SONGS, song_id, SONGS.names).row(0, named=True)
    console.rule(escape(row["title"] or row["filename"] or song_id), align="left")
    _print_fact(console, "song", song_id)
    if row["upload_key"] is not None:
        size = decimal(row["size_bytes"])
        _print_fact(
            console, "upload", f"{row['upload_key']}, {size}, {row['uploaded_at']:%Y-%m-%d %H:%M} UTC"
        )
    if row["error"] is not None:
        _print_fact(console, "error", row["error"], style="red")
    else:
        loudness = row["loudness_lufs"]
        _print_fact(
            console,
            "audio",
            f"{_minutes(row['duration_s'])}, {row['codec']}, {row['sample_rate']} Hz,"
            f" {row['channels']}-channel, peak {row['peak']:.3f},"
            f" {'too quiet for a loudness' if loudness is None else f'{loudness:.1f} LUFS'}",
        )
        _print_stems(store, console, song_id)
        for table in (INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS):
            _print_instruments(store, console, song_id, table)
    for failure in _rows(store, SONG_FAILURES, song_id, ("table", "reason", "message")).iter_rows():
        _print_fact(console, "failed", "{}: {}: {}".format(*failure), style="red")
    for table in SONG_TABLES:
        key = table_key(table, song_id)
        where = store.uri(key) if store.head(key) is not None else "not computed"
        console.print(f"  {table.name:22}{escape(where)}", highlight=False, soft_wrap=True)


def _print_stems(store: ObjectStore, console: Console, song_id: str) -> None:
    """The separator and the residual, then a line for each stem, the strongest first."""
    columns = ["stem", "model", "peak", "rms_dbfs", "frames", "error"]
    blocks = _rows(store, STEMS, song_id, columns).filter(pl.col("error").is_null())
    if blocks.is_empty():
        return
    energy = (pl.col("frames") * 10 ** (pl.col("rms_dbfs") / 10)).sum().alias("energy")
    stems = blocks.group_by("stem").agg(energy, pl.col("peak").max())
    stems = stems.sort("energy", "stem", descending=[True, False])
    total = float(stems["energy"].sum()) or 1.0
    note = read_note(store, STEMS, song_id, QUALITY_NOTE)
    quality = SeparationQuality.from_json(note) if note else None
    residual = f", residual {quality.residual_db:.1f} dB" if quality else ""
    _print_fact(console, "stems", f"by {blocks['model'][0]}{residual}")
    measured = {stem.stem: stem for stem in quality.stems} if quality else {}
    width = int(stems["stem"].str.len_chars().max())  # pyright: ignore[reportArgumentType]
    for stem, energy, peak in stems.iter_rows():
        line = f"{stem:{width}} {energy / total:4.0%} of the energy, peak {peak:.3f}"
        _print_fact(console, "", f"{line}{_loudness(measured.get(stem))}")


def _loudness(stem: StemQuality | None) -> str:
    if stem is None:  # the file was written before this was measured
        return ""
    if stem.silent:
        return ", silent"
    return "" if stem.loudness_lufs is None else f", {stem.loudness_lufs:.1f} LUFS"


def _print_instruments(store: ObjectStore, console: Console, song_id: str, table: Table) -> None:
    columns = ["source", "instrument", "score"]
    tags = _rows(store, table, song_id, columns).drop_nulls("instrument")
    means = tags.group_by("source", "instrument").agg(pl.col("score").mean(), pl.len().alias("windows"))
    # A tagger that gives no scores is surest of what it names most often.
    order = ["source", "score", "windows", "instrument"]
    best = means.sort(order, descending=[False, True, True, False], nulls_last=True).drop("windows")
    for (source,), rows in best.group_by("source", maintain_order=True):
        words = [
            name if score is None else f"{name} {score:.2f}"
            for _, name, score in rows.head(SHOWN_INSTRUMENTS).iter_rows()
        ]
        _print_fact(console, "heard in", f"{source}: {', '.join(words)}")


def _rows(store: ObjectStore, table: Table, song_id: str, columns: Sequence[str]) -> pl.DataFrame:
    """The song's rows in ``table``; none where it has no file."""
    found: Any = read_table(store, table, song_id, columns)
    empty: Any = table.schema.empty_table().select(list(columns))
    return cast(pl.DataFrame, pl.from_arrow(empty if found is None else found))


def _print_fact(console: Console, name: str, text: str, style: str | None = None) -> None:
    console.print(f"{name:9} {escape(text)}", highlight=False, style=style)


def _minutes(seconds: float) -> str:
    """``3:05``, as music players show it; ``0:00.7`` where whole seconds would say nothing."""
    if seconds < 1:
        return f"0:0{seconds:.1f}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
