"""What a file was made from and how it turned out, kept in the file itself: its Parquet footer's key-value metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.objects.retries import read_one_version
from bandscope_dagster.storage.tables.schemas import Table, table_key

PREFIX = "bandscope."
USED_NOTE = "used"  # of stems: JSON with the device, and with batch and segment (frames) as they were used
QUALITY_NOTE = (
    "quality"  # of stems: JSON with residual_db (dB) and, for each stem, the fields of STEM_QUALITY
)
TAGS_NOTE = "tags"  # of tag tables: JSON with the fields of TagSummary
CLIPPED_NOTE = "clipped_share"  # of songs: the share of samples at or beyond full scale, in [0, 1]

TABLE_VERSION: Final = "table_version"  # entry of every file: the version of its columns
SOFTWARE: Final = "software"  # entry of every file: JSON, package → version, of what may have shaped its rows
PACKAGES: Final = ("bandscope", "av", "soxr", "torch", "demucs", "transformers", "pyarrow")


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where the rows of one song in one table come from."""

    song_id: str
    song_hash: str  # SHA-256 of the uploaded bytes; empty where they could not be read
    input_digest: str  # over all inputs; with code_version it decides whether a result can be reused
    code_version: str
    model: str  # empty where none was used
    model_sha256: str
    params: str  # JSON
    run_id: str
    created_at: datetime  # UTC

    def to_metadata(self) -> dict[str, str]:
        """As ``bandscope.<name>`` entries."""
        values = asdict(self) | {"created_at": self.created_at.isoformat()}
        return {PREFIX + name: value for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes]) -> Lineage:
        """The inverse of ``to_metadata``; raises KeyError, with the entry's name, where one is missing."""
        values = {entry.name: metadata[(PREFIX + entry.name).encode()].decode() for entry in fields(cls)}
        return cls(**{**values, "created_at": datetime.fromisoformat(values["created_at"])})  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True)
class Maker:
    """What wrote a file, whatever its rows are."""

    table_version: int | None  # of the columns; None of files of before they had versions
    software: Mapping[str, str]  # package → version; empty for files of before this was written

    @classmethod
    def of(cls, footer: Any) -> Maker:
        """By a footer (``pyarrow.parquet.FileMetaData``)."""
        entries = {name.decode(): text.decode() for name, text in (footer.metadata or {}).items()}
        found = entries.get(PREFIX + TABLE_VERSION)
        software: dict[str, str] = json.loads(entries.get(PREFIX + SOFTWARE, "{}"))
        return cls(None if found is None else int(found), software)


def maker_entries(table: Table) -> dict[str, str]:
    """What every file of the table says of its columns and of the software that writes it now."""
    return {PREFIX + TABLE_VERSION: str(table.version), PREFIX + SOFTWARE: json.dumps(_software())}


@cache
def _software() -> dict[str, str]:
    versions: dict[str, str] = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):  # a checkout that is not installed
            versions[package] = version(package)
    return versions


def read_lineage(store: ObjectStore, table: Table, song_id: str) -> Lineage | None:
    """The lineage of the song's file, from its footer alone; None where the song has no file.

    A file that is not Parquet or has no lineage raises ValueError: it was not written by Bandscope.
    """
    footer = read_footer(store, table, song_id)
    return None if footer is None else lineage_and_notes(footer, store, table, song_id)[0]


def read_note(store: ObjectStore, table: Table, song_id: str, name: str) -> str | None:
    """A note in the song's file, from its footer alone.

    None where the song has no file, or its file has no such note: it was written before there was one, or is the
    row of a rejection. A file that is not Parquet raises ValueError.
    """
    footer = read_footer(store, table, song_id)
    note = None if footer is None else (footer.metadata or {}).get((PREFIX + name).encode())
    return None if note is None else note.decode()


def lineage_and_notes(
    footer: Any, store: ObjectStore, table: Table, song_id: str
) -> tuple[Lineage, dict[str, str]]:
    """What a footer (``pyarrow.parquet.FileMetaData``) holds of ours: the lineage, and the notes beside it.

    Raises ValueError where there is no lineage: the file was not written by Bandscope.
    """
    ours: dict[str, str] = {
        name.decode().removeprefix(PREFIX): text.decode()
        for name, text in (footer.metadata or {}).items()
        if name.startswith(PREFIX.encode())
    }
    known = {entry.name for entry in fields(Lineage)} | {TABLE_VERSION, SOFTWARE}
    try:
        lineage = Lineage.from_metadata(footer.metadata or {})
    except KeyError as error:
        raise _not_ours(store, table, song_id, error) from error
    return lineage, {name: text for name, text in ours.items() if name not in known}


def read_footer(store: ObjectStore, table: Table, song_id: str) -> Any | None:
    """The footer of the song's file (``pyarrow.parquet.FileMetaData``), by one read of its end; None without a file.

    A file that is not Parquet raises ValueError.
    """
    key = table_key(table, song_id)

    def read() -> Any:
        with store.open(key) as file:
            return pq.read_metadata(file)

    try:
        return read_one_version(read)
    except FileNotFoundError:
        return None
    except pa.ArrowInvalid as error:
        raise _not_ours(store, table, song_id, error) from error


def _not_ours(store: ObjectStore, table: Table, song_id: str, cause: Exception) -> ValueError:
    return ValueError(
        f"{store.uri(table_key(table, song_id))} was not written by Bandscope ({cause}); delete it and "
        f"materialize {table.name} for {song_id} again"
    )
