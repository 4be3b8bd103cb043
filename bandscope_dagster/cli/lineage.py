"""``bandscope lineage``: prints the origin of every table of a song. It reads only the song's files."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from bandscope_dagster.pages.lineage_view import in_words, lineage_facts
from bandscope_dagster.pages.text import megabytes, moment, visible
from bandscope_dagster.songs.find import find_songs
from bandscope_dagster.songs.provenance import SongOrigin, TableOrigin, trace
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_ID

UPLOAD: Final = ("upload_key", "filename", "owner", "song_hash", "size_bytes", "uploaded_at")
DECODED: Final = ("container", "codec", "sample_rate", "channels", "bit_rate", "duration_s", "frames")
DECODERS: Final = ("av", "soxr")  # PyAV includes its own FFmpeg, which decodes; soxr resamples
NAME_WIDTH: Final = 12  # characters; the longest name is "input digest"


def print_lineage(store: ObjectStore, console: Console, pattern: str, *, as_json: bool = False) -> None:
    """Print the origin of the tables of each song whose id, file name or title matches ``pattern``.

    With ``as_json``, each song is a JSON object on its own line.

    Raises:
        NoSuchSong: no song matches.
    """
    for origin in _find(store, pattern):
        if as_json:
            console.out(json.dumps(to_json(origin), ensure_ascii=False), highlight=False)
        else:
            _print_song(console, origin)


def to_json(origin: SongOrigin) -> dict[str, Any]:
    """The song's origin as JSON. The keys are the column names; unknown values are null."""
    song = origin.song
    return {
        "song_id": origin.song_id,
        "upload": None if song is None else {name: _plain(song[name]) for name in UPLOAD},
        "decoded": None if song is None else {name: song[name] for name in DECODED},
        "status": origin.evidence.status,
        "error": None if song is None else song["error"],
        "tables": {table.table: _table_json(table) for table in origin.tables},
    }


def _table_json(origin: TableOrigin) -> dict[str, Any]:
    entry: dict[str, Any] = {"stored": origin.lineage is not None, "remarks": list(origin.remarks)}
    if origin.lineage is not None and origin.maker is not None:
        entry |= {name: _plain(value) for name, value in asdict(origin.lineage).items()}
        entry["params"] = json.loads(origin.lineage.params or "{}")
        entry |= asdict(origin.maker) | {"computed_on": origin.computed_on}
    return entry


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _find(store: ObjectStore, pattern: str) -> list[SongOrigin]:
    if SONG_ID.fullmatch(pattern):
        origin = trace(store, pattern)
        if origin.has_files:  # also if the table ``songs`` has no file for this song
            return [origin]
    return [trace(store, song_id) for song_id in find_songs(store, pattern)]


def _print_song(console: Console, origin: SongOrigin) -> None:
    song = origin.song or {}
    console.rule(escape(visible(song.get("title") or song.get("filename") or origin.song_id)), align="left")
    _print_facts(console, {"song": origin.song_id, "status": origin.evidence.status} | _upload_facts(origin))
    software: Mapping[str, str] = {}
    for table in origin.tables:
        made_with = table.maker.software if table.maker is not None else {}
        console.print(f"\n[bold]{table.table}[/bold]{'' if table.lineage else '  no file'}")
        facts = _table_facts(table)
        if made_with and made_with != software:  # print it once if it is the same for all tables
            facts["software"], software = in_words(made_with), made_with
        _print_facts(console, facts)
        for remark in table.remarks:
            _print_facts(console, {"!": remark}, style="yellow")


def _upload_facts(origin: SongOrigin) -> dict[str, str]:
    song = origin.song
    if song is None:
        return {"upload": "unknown: songs has no readable file of this song"}
    facts: dict[str, str] = {}
    if song["upload_key"] is not None:
        facts["upload"] = (
            f"{song['upload_key']}, {megabytes(song['size_bytes'])}, {moment(song['uploaded_at'])}"
        )
    facts["SHA-256"] = song["song_hash"] or "not read"
    if song["codec"] is not None:
        facts["format"] = (
            f"{song['codec']} in {song['container']}, {song['sample_rate']} Hz, {song['channels']} channels"
        )
    software = next((t.maker.software for t in origin.tables if t.maker is not None), {})
    decoders = {name: software[name] for name in DECODERS if name in software}
    if song["frames"] is not None:
        facts["decoded"] = f"to {song['frames']} frames at 44.1 kHz, stereo" + (
            f", by {in_words(decoders)}" if decoders else ""
        )
    return facts | ({"error": song["error"]} if song["error"] is not None else {})


def _table_facts(origin: TableOrigin) -> dict[str, str]:
    if origin.lineage is None:
        return {}
    version = origin.maker.table_version if origin.maker is not None else None
    return lineage_facts(origin.lineage) | {
        "computed on": in_words(origin.computed_on or {}),
        "columns": f"version {version}" if version is not None else "older than the first version",
    }


def _print_facts(console: Console, facts: Mapping[str, str], style: str = "") -> None:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=NAME_WIDTH, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            grid.add_row(name, escape(visible(value, 1000)))
    console.print(grid, style=style, highlight=False)
