"""The folder of the pages, and the summary at the top of each page, which is read without the rest."""

import json
import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_ID

FOLDER: Final = "song_pages"
HEAD_BYTES: Final = 32_768  # enough for a summary, which is about ten texts of limited length
HEADS_AT_ONCE: Final = 16  # read in parallel, because each waits for the store and not for the CPU
_LISTED: Final = re.compile(rb'<script type="application/json" id="songs">(.*?)</script>', re.DOTALL)
_SUMMARY: Final = re.compile(rb'<script type="application/json" id="summary">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Summary:
    """A song in the index; the top of its page contains these values."""

    digest: str  # of everything that the page was made from
    song_id: str
    title: str
    artist: str
    owner: str
    filename: str
    status: str
    seconds: float
    loudness_lufs: float | None
    instruments: list[tuple[str, str]]  # (name, family), present in any source; the longest present first
    reason: str = ""  # of the status, if it is not ok; pages of older versions have none


@dataclass(frozen=True, slots=True)
class Gone:
    """Pages that were there, and have no file any more or an empty one."""

    songs: list[str]
    index: bool


@dataclass(frozen=True, slots=True)
class PageFolder:
    """The pages in one folder of a store; ``""`` is the root of the store."""

    store: ObjectStore
    folder: str = FOLDER

    @property
    def index_key(self) -> str:
        """The key of the index."""
        return self.key("index")

    def key(self, song_id: str) -> str:
        """The key of a song's page."""
        return f"{self.folder}/{song_id}.html" if self.folder else f"{song_id}.html"

    def summary(self, song_id: str) -> Summary | None:
        """The summary in a song's page; None if there is no page, or an older version wrote it."""
        try:
            with self.store.open(self.key(song_id)) as file:
                head = file.read(HEAD_BYTES)
        except FileNotFoundError:
            return None
        found = _SUMMARY.search(head)
        try:
            values: dict[str, Any] = json.loads(found[1]) if found else {}
            instruments = [(name, family) for name, family in values.pop("instruments")]
            return Summary(**values, instruments=instruments)
        except (KeyError, TypeError, ValueError):
            return None

    def gone(self, reported: Collection[str] = ()) -> Gone:
        """The pages that are gone.

        A song had a page if it is ``reported``, if the index lists it, or if there is an empty file.
        """
        try:
            found = _LISTED.search(self.store.read(self.index_key))
            rows: list[list[Any]] | None = json.loads(found[1])["rows"] if found else None
        except (FileNotFoundError, KeyError, TypeError, ValueError):  # damaged, or of an older version
            rows = None
        sizes = {name: size for name, size in self._names() if name != "index"}
        had = {str(row[0]) for row in rows or () if row} | set(reported) | sizes.keys()
        return Gone(sorted(song for song in had if not sizes.get(song)), index=rows is None and bool(had))

    def summaries(self) -> Iterator[Summary]:
        """The summaries of all pages, in the order of the store."""
        # A folder that the user chose may contain other pages.
        known = [name for name, _ in self._names() if SONG_ID.fullmatch(name) and name != "index"]
        with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
            yield from (summary for summary in pool.map(self.summary, known) if summary is not None)

    def _names(self) -> Iterator[tuple[str, int]]:
        """The name without extension, and the size in bytes, of each HTML file in the folder."""
        for found in self.store.list(self.folder):
            name = found.key.rpartition("/")[2]
            if name.endswith(".html"):
                yield name.removesuffix(".html"), found.size
