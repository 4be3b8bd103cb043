"""The recipes of all catalogs, in the order in which they are refreshed."""

from bandscope_dagster.catalogs.catalog import Catalog
from bandscope_dagster.catalogs.instrument_catalog import instrument_catalog
from bandscope_dagster.catalogs.song_catalog import song_catalog
from bandscope_dagster.catalogs.song_errors import song_errors
from bandscope_dagster.input_digests import CODE_VERSIONS
from bandscope_dagster.songs.presence import PresentFrom
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_CATALOG, SONG_CATALOG, SONG_ERRORS


def all_catalogs(present_from: PresentFrom) -> list[Catalog]:
    """Every catalog, with the code versions of this version of Bandscope."""
    return [
        song_catalog(present_from, CODE_VERSIONS[SONG_CATALOG.name]),
        instrument_catalog(present_from, CODE_VERSIONS[INSTRUMENT_CATALOG.name]),
        song_errors(CODE_VERSIONS[SONG_ERRORS.name]),
    ]
