"""What a catalog was made from: the versions of every song's files, kept apart under the id of the refresh.

A refresh first writes its state to ``_state/<catalog>/<refresh id>.parquet`` and then the catalog, whose footer
names the id. Replacing the catalog is thus the one step that counts: a refresh that is killed before it leaves the
old catalog with the old state, and of two at the same time each leaves its own pair, of which the catalog's stands.
A catalog whose state is not there is built anew.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.objects.retries import read_one_version
from bandscope_dagster.storage.tables.lineage import PREFIX
from bandscope_dagster.storage.tables.schemas import Table, catalog_key
from bandscope_dagster.storage.tables.song_tables import Written

logger = logging.getLogger(__name__)

STATES = "_state"  # beside the catalogs' folders, so that <catalog>/*.parquet is the catalog alone
ORPHANED_AFTER = timedelta(days=1)  # no refresh takes as long; until then its state waits for its catalog

# What reading a file that is no Parquet, or is broken, raises; a panic is polars' own, and no Exception.
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class StoredCatalog:
    """A catalog that stands, and what it was made from."""

    refresh_id: str
    versions: pl.DataFrame  # as in ``SongFiles``
    file: Written


def footer_entries(refresh_id: str, made_with: str) -> dict[str, str]:
    """What the footer of a catalog says of the refresh that wrote it.

    ``made_with`` is text that changes with whatever the rows depend on beside the songs' files.
    """
    values = {"refresh_id": refresh_id, "made_with": made_with, "created_at": datetime.now(UTC).isoformat()}
    return {PREFIX + name: value for name, value in values.items()}


def refresh_id_in(metadata: Mapping[bytes, bytes] | None) -> str:
    """The id of the refresh that wrote the catalog with this footer; empty where none did."""
    return _entry(metadata, "refresh_id")


def stored_catalog(
    store: ObjectStore, table: Table, made_with: str, sources: Sequence[Table]
) -> StoredCatalog | None:
    """The catalog in the store, from its footer and its state.

    None where it must be built anew: there is none, ``made_with`` has changed, or it or its state (which has the
    versions of the songs' files in ``sources``) is lost or cannot be read.
    """
    key = catalog_key(table)

    def read_footer() -> Any:  # pyarrow.parquet.FileMetaData
        with store.open(key) as file:
            return pq.read_metadata(file)

    found = store.head(key)
    if found is None:
        return None
    try:
        footer = read_one_version(read_footer)
        refresh_id = refresh_id_in(footer.metadata)
        if _entry(footer.metadata, "made_with") != made_with:
            logger.info(
                "%s was made with other settings or by another version: all songs are read", table.name
            )
            return None
        versions = read_state(store, table, refresh_id, sources)
    except (FileNotFoundError, *UNREADABLE) as error:
        logger.warning(
            "%s or its state is lost or cannot be read (%s): all songs are read", table.name, error
        )
        return None
    return StoredCatalog(refresh_id, versions, Written(key, store.uri(key), footer.num_rows, found.size))


def read_state(store: ObjectStore, table: Table, refresh_id: str, sources: Sequence[Table]) -> pl.DataFrame:
    """The versions of the songs' files in ``sources`` from which a refresh made the catalog, as in ``SongFiles``.

    Raises:
        FileNotFoundError: the state is lost. A damaged one raises one of ``UNREADABLE``.
    """
    state = io.BytesIO(store.read(_state_key(table, refresh_id)))
    return pl.read_parquet(state, columns=["song_id", *(each.name for each in sources)])


def write_state(store: ObjectStore, table: Table, refresh_id: str, versions: pl.DataFrame) -> None:
    """Keep what the catalog that the refresh is about to write will have been made from."""
    with store.create(_state_key(table, refresh_id)) as pending:
        versions.write_parquet(pending.file, compression="zstd")


def forget_states(store: ObjectStore, table: Table, current: str, replaced: str | None) -> None:
    """Delete the state of the catalog that was ``replaced``, and those that killed refreshes left long ago."""
    for found in list(store.list(f"{STATES}/{table.name}")):
        orphaned = datetime.now(UTC) - found.modified > ORPHANED_AFTER
        if found.key != _state_key(table, current) and (
            orphaned or (replaced is not None and found.key == _state_key(table, replaced))
        ):
            store.delete(found.key)


def _state_key(table: Table, refresh_id: str) -> str:
    return f"{STATES}/{table.name}/{refresh_id}.parquet"


def _entry(metadata: Mapping[bytes, bytes] | None, name: str) -> str:
    return (metadata or {}).get((PREFIX + name).encode(), b"").decode()
