"""``bandscope status``: what the tables say of all songs, or of one song in full."""

from fnmatch import fnmatchcase
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.sql import query
from bandscope_dagster.storage.objects import ObjectStore
from bandscope_dagster.storage.schemas import ANALYSIS_TABLES, SONG_TABLES, table_key

SHOWN_INSTRUMENTS: Final = 5  # per source


class NoSuchSong(BandscopeError):
    """Nothing that the tables know matches."""


def find_songs(store: ObjectStore, pattern: str) -> list[str]:
    """The ids of the songs whose id, file name or title matches the glob ``pattern``.

    Raises:
        NoSuchSong: there are none.
    """
    songs = query(store, "SELECT song_id, filename, title FROM songs ORDER BY uploaded_at, song_id")
    found = [
        row["song_id"]
        for row in songs.iter_rows(named=True)
        if any(name is not None and fnmatchcase(name, pattern) for name in row.values())
    ]
    if not found:
        raise NoSuchSong(f"no song matches {pattern!r}; `bandscope status` lists all of them")
    return found


def print_overview(store: ObjectStore, console: Console) -> None:
    """Every song in a line: its duration, loudness, and what there is of it."""
    songs = query(
        store,
        "SELECT song_id, filename, duration_s, loudness_lufs, error FROM songs ORDER BY uploaded_at, song_id",
    )
    stored = {table.name: {object.key for object in store.list(table.name)} for table in ANALYSIS_TABLES}
    grid = Grid("song", "duration", "loudness", *(table.name for table in ANALYSIS_TABLES))
    for row in songs.iter_rows(named=True):
        if row["error"] is not None:
            grid.add_row(row["song_id"], f"[red]{escape(row['error'])}[/red]")
            continue
        marks = [
            "✓" if table_key(table, row["song_id"]) in stored[table.name] else "-"
            for table in ANALYSIS_TABLES
        ]
        grid.add_row(row["song_id"], _seconds(row["duration_s"]), _lufs(row["loudness_lufs"]), *marks)
    console.print(
        grid if songs.height else "There are no songs yet: `bandscope ingest` some, then `bandscope run`."
    )


def print_songs(store: ObjectStore, console: Console, pattern: str) -> None:
    """All that is known of the songs that match, one after another."""
    for song_id in find_songs(store, pattern):
        _print_song(store, console, song_id)


def _print_song(store: ObjectStore, console: Console, song_id: str) -> None:
    # A song id is a name of [a-z0-9-], so it can stand in a query as it is.
    row = query(store, f"SELECT * FROM songs WHERE song_id = '{song_id}'").row(0, named=True)
    console.rule(escape(row["title"] or row["filename"] or song_id), align="left")
    console.print(f"song      {song_id}", highlight=False)
    if row["error"] is not None:
        console.print(f"[red]error     {escape(row['error'])}[/red]", highlight=False)
    else:
        console.print(
            f"audio     {_seconds(row['duration_s'])}, {row['codec']}, {row['sample_rate']} Hz,"
            f" {row['channels']} channels; loudness {_lufs(row['loudness_lufs'])}, peak {row['peak']:.3f}",
            highlight=False,
        )
        _print_stems(store, console, song_id)
        for table in ("instrument_tags", "stem_instrument_tags"):
            _print_instruments(store, console, song_id, table)
    for table in SONG_TABLES:
        key = table_key(table, song_id)
        where = store.uri(key) if store.head(key) is not None else "not computed"
        console.print(f"  {table.name:22}{escape(where)}", highlight=False, soft_wrap=True)


def _print_stems(store: ObjectStore, console: Console, song_id: str) -> None:
    stems = query(
        store,
        f"""SELECT stem, model, MAX(peak) AS peak, SUM(frames * POW(10.0, rms_dbfs / 10)) AS energy
            FROM stems WHERE song_id = '{song_id}' AND error IS NULL GROUP BY stem, model ORDER BY energy DESC""",
    )
    total = stems["energy"].sum()
    parts = [
        f"{row['stem']} {row['energy'] / total:.0%} of the energy (peak {row['peak']:.3f})"
        for row in stems.iter_rows(named=True)
        if total
    ]
    if parts:
        console.print(f"stems     {', '.join(parts)}, by {stems['model'][0]}", highlight=False)


def _print_instruments(store: ObjectStore, console: Console, song_id: str, table: str) -> None:
    tags = query(
        store,
        f"""SELECT source, instrument, AVG(score) AS score FROM {table}
            WHERE song_id = '{song_id}' AND error IS NULL GROUP BY source, instrument
            ORDER BY source, score DESC, instrument""",
    )
    for (source,), rows in tags.group_by("source", maintain_order=True):
        best = rows.head(SHOWN_INSTRUMENTS).iter_rows(named=True)
        words = [f"{row['instrument']} {_score(row['score'])}" for row in best]
        console.print(f"heard in  {source}: {', '.join(words)}", highlight=False)


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _lufs(loudness: float | None) -> str:
    return "too quiet to measure" if loudness is None else f"{loudness:.1f} LUFS"
