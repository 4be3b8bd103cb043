"""Writes the page that lists all songs, with a search and filters that work without a server."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bandscope_dagster.pages.shelf import Shelf, Summary
from bandscope_dagster.pages.text import moment
from bandscope_dagster.pages.web_files import INDEX_PAGE, render


@dataclass(frozen=True, slots=True)
class WrittenIndex:
    """The index, as it lies in its place."""

    uri: str
    songs: int
    bytes: int


def write_index(shelf: Shelf) -> WrittenIndex:
    """Write the index over the pages that are there, in place of the one before, in one step.

    It is made from the pages' own heads, so that it never names a page that is not there.
    """
    summaries = sorted(shelf.summaries(), key=lambda song: (song.title.casefold(), song.song_id))
    values = {"songs": _table(summaries), "count": len(summaries), "made": moment(datetime.now(UTC))}
    with shelf.store.create(shelf.index_key) as page:
        page.write(render(INDEX_PAGE, values).encode())
        size = page.commit()
    return WrittenIndex(shelf.store.uri(shelf.index_key), len(summaries), size)


def _table(summaries: Sequence[Summary]) -> dict[str, Any]:
    """The songs as rows of plain values, their instruments as numbers of one list: half the size of objects."""
    named = sorted({instrument for song in summaries for instrument in song.instruments})
    numbers = {instrument: number for number, instrument in enumerate(named)}
    columns = ("song_id", "title", "artist", "owner", "filename", "status", "seconds", "loudness_lufs")
    return {
        "columns": [*columns, "instruments"],
        "instruments": named,
        "rows": [
            [*(getattr(song, column) for column in columns), [numbers[found] for found in song.instruments]]
            for song in summaries
        ],
    }
