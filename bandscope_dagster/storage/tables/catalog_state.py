"""The state of a catalog: the versions of all songs' files from which it was built.

A refresh first writes its state to ``_state/<catalog>/<refresh id>.parquet`` and then the catalog, whose footer has
the same id. So the replacement of the catalog is the only step that matters: a refresh that is killed before it
leaves the old catalog with the old state. Two refreshes at the same time write two states, and the id in the
catalog selects the right one. A catalog without its state is rebuilt.
"""

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.lineage import PREFIX, footer_at
from bandscope_dagster.storage.tables.schemas import Table, catalog_key
from bandscope_dagster.storage.tables.song_tables import Written

logger = logging.getLogger(__name__)

STATES = "_state"  # outside the catalogs' folders, so that <catalog>/*.parquet matches only the catalog
ORPHANED_AFTER = timedelta(days=1)  # longer than any refresh: an older state belongs to no catalog

# The errors for a file that is damaged or not Parquet. A panic of polars is not an Exception.
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, DamagedFile)


@dataclass(frozen=True, slots=True)
class StoredCatalog:
    """A catalog in the store, and the files from which it was built."""

    refresh_id: str
    versions: pl.DataFrame  # as in ``SongFiles``
    file: Written


def footer_entries(refresh_id: str, made_with: str) -> dict[str, str]:
    """The entries about a refresh in the footer of its catalog.

    ``made_with`` is text that changes with everything that the rows depend on, except the songs' files.
    """
    values = {"refresh_id": refresh_id, "made_with": made_with, "created_at": datetime.now(UTC).isoformat()}
    return {PREFIX + name: value for name, value in values.items()}


def refresh_id_in(metadata: Mapping[bytes, bytes] | None) -> str:
    """The id of the refresh that wrote the catalog with this footer; empty if there is none."""
    return _entry(metadata, "refresh_id")


def stored_catalog(
    store: ObjectStore, table: Table, made_with: str, compared: Sequence[str]
) -> StoredCatalog | None:
    """The catalog in the store, by its footer and its state.

    None if it must be rebuilt: there is none, ``made_with`` has changed, or the catalog or its state (the columns
    ``compared`` of the versions of the songs' files) is missing or cannot be read.
    """
    key = catalog_key(table)
    found = store.head(key)
    if found is None:
        return None
    try:
        footer = footer_at(store, key)
        refresh_id = refresh_id_in(footer.metadata)
        if _entry(footer.metadata, "made_with") != made_with:
            logger.info("%s has other settings or another version; rebuilding it from all songs", table.name)
            return None
        versions = read_state(store, table, refresh_id, compared)
    except (FileNotFoundError, *UNREADABLE) as error:
        problem = "%s or its state is missing or cannot be read (%s); rebuilding it from all songs"
        logger.warning(problem, table.name, error)
        return None
    return StoredCatalog(refresh_id, versions, Written(key, store.uri(key), footer.num_rows, found.size))


def read_state(store: ObjectStore, table: Table, refresh_id: str, columns: Sequence[str]) -> pl.DataFrame:
    """The ``columns`` of the versions from which a refresh built the catalog, as in ``SongFiles``.

    Raises:
        FileNotFoundError: the state is missing. A damaged state raises one of ``UNREADABLE``.
    """
    state = io.BytesIO(store.read(_state_key(table, refresh_id)))
    return pl.read_parquet(state, columns=["song_id", *columns])


def find_state(
    store: ObjectStore, table: Table, refresh_id: str, columns: Sequence[str]
) -> pl.DataFrame | None:
    """As ``read_state``; None if the state is missing or cannot be read, or if the id is empty."""
    if not refresh_id:
        return None
    try:
        return read_state(store, table, refresh_id, columns)
    except (FileNotFoundError, *UNREADABLE):
        return None


def read_rows(store: ObjectStore, table: Table, columns: Sequence[str]) -> pl.DataFrame | None:
    """The ``columns`` of the stored catalog; None if it is missing or cannot be read."""
    found = read_with_refresh(store, table, columns)
    return None if found is None else found[0]


def read_made_from(
    store: ObjectStore, table: Table, sources: Sequence[Table], columns: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """The ``columns`` of the stored catalog, and the versions of the songs' files from which it was built.

    None if the catalog or its state is missing or cannot be read.
    """
    found = read_with_refresh(store, table, columns)
    if found is None:
        return None
    rows, refresh_id = found
    versions = find_state(store, table, refresh_id, [each.name for each in sources])
    return None if versions is None else (rows, versions)


def read_with_refresh(
    store: ObjectStore, table: Table, columns: Sequence[str] | None = None
) -> tuple[pl.DataFrame, str] | None:
    """The ``columns`` of the stored catalog, by default all, and the id of its refresh; None as in ``read_rows``."""
    try:
        content = io.BytesIO(store.read(catalog_key(table)))
        refresh_id = refresh_id_in(pq.read_metadata(content).metadata)
        content.seek(0)  # polars reads from the current position
        return pl.read_parquet(content, columns=None if columns is None else list(columns)), refresh_id
    except (FileNotFoundError, *UNREADABLE):
        return None
    except OSError as error:  # of the parser of footers
        logger.warning("%s cannot be read (%s)", table.name, error)
        return None


def write_state(store: ObjectStore, table: Table, refresh_id: str, versions: pl.DataFrame) -> None:
    """Store the state of the catalog that this refresh is about to write."""
    with store.create(_state_key(table, refresh_id)) as pending:
        versions.write_parquet(pending.file, compression="zstd")


def delete_old_states(store: ObjectStore, table: Table, current: str, replaced: str | None) -> None:
    """Delete the state of the ``replaced`` catalog, and states that killed refreshes left over."""
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
