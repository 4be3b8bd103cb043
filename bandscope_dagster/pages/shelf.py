"""Where pages lie, and what the head of a page says about it without the rest being read."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_ID

FOLDER: Final = "song_pages"
HEAD_BYTES: Final = 32_768  # in which a summary ends; it holds at most some ten texts of bounded length
HEADS_AT_ONCE: Final = 16  # each read waits for the store, not for the CPU
_SUMMARY: Final = re.compile(rb'<script type="application/json" id="summary">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Summary:
    """A song in a line, as it stands at the top of its page: the index is made from these."""

    digest: str  # of all that the page was made from
    song_id: str
    title: str
    artist: str
    owner: str
    filename: str
    status: str
    seconds: float
    loudness_lufs: float | None
    instruments: list[tuple[str, str]]  # present in any source, with their families; the most present first


@dataclass(frozen=True, slots=True)
class Shelf:
    """The pages of a store, in one folder; ``""`` is its root."""

    store: ObjectStore
    folder: str = FOLDER

    @property
    def index_key(self) -> str:
        """The key of the page that lists all others."""
        return self._key("index")

    def key(self, song_id: str) -> str:
        """The key of a song's page."""
        return self._key(song_id)

    def summary(self, song_id: str) -> Summary | None:
        """What the song's page says of itself; None where there is none, or one that an older version wrote."""
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

    def summaries(self) -> Iterator[Summary]:
        """Those of all pages, in the store's order."""
        names = (found.key.rpartition("/")[2] for found in self.store.list(self.folder))
        songs = [name.removesuffix(".html") for name in names if name.endswith(".html")]
        # In a folder of somebody's own there may be other pages.
        known = [song for song in songs if SONG_ID.fullmatch(song) and song != "index"]
        with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
            yield from (summary for summary in pool.map(self.summary, known) if summary is not None)

    def _key(self, name: str) -> str:
        return f"{self.folder}/{name}.html" if self.folder else f"{name}.html"


def as_json(summary: Summary) -> dict[str, Any]:
    """The inverse of what ``Shelf.summary`` reads."""
    return asdict(summary)
