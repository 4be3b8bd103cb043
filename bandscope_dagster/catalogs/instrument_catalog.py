"""``instrument_catalog``: the instruments of all songs, in the mixture and in each stem, with their intervals."""

import polars as pl

from bandscope_dagster.catalogs.catalog import Catalog
from bandscope_dagster.songs.presence import PresentFrom, as_setting, instruments_of
from bandscope_dagster.storage.tables.catalog_columns import display_name
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_CATALOG, SONGS, TAG_TABLES
from bandscope_dagster.storage.tables.song_files import SongFiles
from bandscope_dagster.storage.tables.sorted_table import Layout


def instrument_catalog(present_from: PresentFrom, code_version: str) -> Catalog:
    """``instrument_catalog``, sorted by instrument, song and source.

    It contains every tagged instrument; one that is never present has 0 seconds. A label that is not in the
    vocabulary is its own instrument.
    """

    def rows(files: SongFiles) -> pl.DataFrame:
        instruments = pl.concat(
            files.read(table, lambda tags: instruments_of(tags, present_from)) for table in TAG_TABLES
        )
        names = files.read(SONGS, lambda songs: songs.select("song_id", display_name()))
        return instruments.join(names, on="song_id", how="left").select(INSTRUMENT_CATALOG.names)

    return Catalog(
        # A row is 20 to 50 bytes, so a group is about 1 MB. 100,000 songs have 3 million rows in 92 groups.
        Layout(
            INSTRUMENT_CATALOG,
            order=("instrument", "song_id", "source", "family"),
            row_group_rows=32_768,
            file_rows=32_768,  # of about 1,000 songs
            file_group_rows=4096,
        ),
        sources=(*TAG_TABLES, SONGS),
        settings={"code_version": code_version, "present_from": as_setting(present_from)},
        rows=rows,
    )
