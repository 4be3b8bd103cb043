"""The index: a page that lists all songs, with a search and filters that work without a server."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bandscope_dagster.pages.page_folder import PageFolder, Summary
from bandscope_dagster.pages.text import moment
from bandscope_dagster.pages.web_files import INDEX_PAGE, render


@dataclass(frozen=True, slots=True)
class WrittenIndex:
    """The index in its folder."""

    uri: str
    songs: int


def write_index(pages: PageFolder) -> WrittenIndex:
    """Write the index of all pages in the folder; it replaces the old index in one step.

    Its rows come from the pages themselves, so it never lists a page that does not exist.
    """
    summaries = sorted(pages.summaries(), key=lambda song: (song.title.casefold(), song.song_id))
    values = {"songs": _table(summaries), "count": len(summaries), "made": moment(datetime.now(UTC))}
    with pages.store.create(pages.index_key) as page:
        page.write(render(INDEX_PAGE, values).encode())
    return WrittenIndex(pages.store.uri(pages.index_key), len(summaries))


def _table(summaries: Sequence[Summary]) -> dict[str, Any]:
    """The songs as rows, with instruments as positions in one list: half the size of a list of objects."""
    instruments = sorted({instrument for song in summaries for instrument in song.instruments})
    numbers = {instrument: number for number, instrument in enumerate(instruments)}
    columns = (
        "song_id",
        "title",
        "artist",
        "owner",
        "filename",
        "status",
        "reason",
        "seconds",
        "loudness_lufs",
    )
    return {
        "columns": [*columns, "instruments"],
        "instruments": instruments,
        "rows": [
            [*(getattr(song, column) for column in columns), [numbers[found] for found in song.instruments]]
            for song in summaries
        ],
    }
