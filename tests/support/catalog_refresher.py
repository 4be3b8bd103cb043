"""A process for a test to kill: it changes all songs of a store and refreshes the catalogs, turn after turn.

    python catalog_refresher.py URL FIRST LAST [the fields of S3Options]

In each turn every song gets the turn's number as its title and its score. Odd turns have one song more. The process
prints ``begin N`` before the refresh and ``end N`` after it.
"""

import sys

from catalog_songs import INSTRUMENT_CATALOG, SONG_CATALOG, remove
from song_rows import lineage, song_row, tag_row

from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore, S3Options
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS, SONGS
from bandscope_dagster.storage.tables.song_tables import write_table

ALWAYS = ("a", "b")
REFRESHED = (SONG_CATALOG, INSTRUMENT_CATALOG)
ODD = "odd"


def songs_of(turn: int) -> list[str]:
    """The songs in the store after a turn's changes."""
    return [*ALWAYS, ODD] if turn % 2 else list(ALWAYS)


def change(store: ObjectStore, turn: int) -> None:
    """Write the turn's songs."""
    for song in songs_of(turn):
        write_table(store, INSTRUMENT_TAGS, [tag_row(song, "harp", turn / 128, 0.0)], lineage(song))
        write_table(store, SONGS, [song_row(song, title=str(turn))], lineage(song))
    if turn % 2 == 0:
        remove(store, ODD)


def main() -> None:
    """Run all turns."""
    url, first, last, *options = sys.argv[1:]
    store = open_store(url, S3Options(*options) if options else None)
    for turn in range(int(first), int(last) + 1):
        change(store, turn)
        print(f"begin {turn}", flush=True)
        for _ in refresh(store, REFRESHED):
            pass
        print(f"end {turn}", flush=True)


if __name__ == "__main__":
    main()
