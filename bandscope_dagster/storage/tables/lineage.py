"""The lineage and the notes of a song's file, which are key-value metadata in its Parquet footer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO, Final

import pyarrow.parquet as pq

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import MADE_AGAIN, DamagedFile, parse
from bandscope_dagster.storage.tables.features import features_entry
from bandscope_dagster.storage.tables.schemas import Table, table_key

PREFIX = "bandscope."
SONG_ENTRY = f"{PREFIX}song_id".encode()  # of the footer of every song's file
# Names of the notes.
USED_NOTE = "used"  # of stems: JSON with the device, the batch and the segment (frames) that were used
QUALITY_NOTE = "quality"  # of stems: JSON with residual_db (dB), and the fields of STEM_QUALITY for each stem
TAGS_NOTE = "tags"  # of tag tables: JSON with the fields of TagSummary
CLIPPED_NOTE = "clipped_share"  # of songs: share of the samples at or beyond full scale, in [0, 1]

# Names of the entries that every file has beside its lineage.
TABLE_VERSION: Final = "table_version"  # the version of the columns
SOFTWARE: Final = "software"  # JSON: package → version, of the packages that may affect the rows
PACKAGES: Final = ("bandscope", "av", "soxr", "torch", "demucs", "transformers", "pyarrow")


@dataclass(frozen=True, slots=True)
class Lineage:
    """The origin of a song's rows in one table."""

    song_id: str
    song_hash: str  # SHA-256 of the uploaded bytes; empty if they could not be read
    input_digest: str  # SHA-256 over all inputs; a result is reused if it and code_version are unchanged
    code_version: str
    model: str  # empty if no model was used
    model_sha256: str
    params: str  # JSON
    run_id: str
    created_at: datetime  # UTC; when the writing of the file began

    def written_now(self) -> Lineage:
        """The same origin, for a file whose writing begins now. A plan may be made many minutes earlier."""
        return replace(self, created_at=datetime.now(UTC))

    def to_metadata(self) -> dict[str, str]:
        """The fields as ``bandscope.<name>`` entries."""
        values = asdict(self) | {"created_at": self.created_at.isoformat()}
        return {PREFIX + name: value for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes]) -> Lineage:
        """The inverse of ``to_metadata``. Raises KeyError with the entry's name if one is missing."""
        values = {entry.name: metadata[(PREFIX + entry.name).encode()].decode() for entry in fields(cls)}
        return cls(**{**values, "created_at": datetime.fromisoformat(values["created_at"])})  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True)
class Maker:
    """The version of a file's columns, and the software that wrote the file."""

    table_version: int | None  # None for files written before columns had versions
    software: Mapping[str, str]  # package → version; empty for files written before software was noted

    @classmethod
    def of(cls, footer: Any) -> Maker:
        """Read from a footer (``pyarrow.parquet.FileMetaData``)."""
        entries = {name.decode(): text.decode() for name, text in (footer.metadata or {}).items()}
        found = entries.get(PREFIX + TABLE_VERSION)
        software: dict[str, str] = json.loads(entries.get(PREFIX + SOFTWARE, "{}"))
        return cls(None if found is None else int(found), software)


def maker_entries(table: Table) -> dict[str, str]:
    """The entries of every new file of the table: its version, the installed software, and types for ``datasets``."""
    ours = {PREFIX + TABLE_VERSION: str(table.version), PREFIX + SOFTWARE: json.dumps(_software())}
    return ours | features_entry(table)


@cache
def _software() -> dict[str, str]:
    versions: dict[str, str] = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):  # such as bandscope itself in a checkout that is not installed
            versions[package] = version(package)
    return versions


def read_lineage(store: ObjectStore, table: Table, song_id: str) -> Lineage | None:
    """The lineage of the song's file, by a read of its footer; None if the song has no file.

    Raises ValueError if Bandscope did not write the file: it is not Parquet, or has no lineage.
    """
    footer = read_footer(store, table, song_id)
    return None if footer is None else lineage_and_notes(footer, store, table, song_id)[0]


def read_note(store: ObjectStore, table: Table, song_id: str, name: str) -> str | None:
    """A note of the song's file, by a read of its footer.

    None if the song has no file, or the file has no such note: an older version wrote it, or it is the row of a
    rejected song. Raises ValueError if the file is not Parquet.
    """
    footer = read_footer(store, table, song_id)
    note = None if footer is None else (footer.metadata or {}).get((PREFIX + name).encode())
    return None if note is None else note.decode()


def lineage_and_notes(
    footer: Any, store: ObjectStore, table: Table, song_id: str
) -> tuple[Lineage, dict[str, str]]:
    """The lineage and the notes in a footer (``pyarrow.parquet.FileMetaData``).

    Raises DamagedFile if there is no lineage, so Bandscope did not write the file, or if it is that of another song.
    """
    ours: dict[str, str] = {
        name.decode().removeprefix(PREFIX): text.decode()
        for name, text in (footer.metadata or {}).items()
        if name.startswith(PREFIX.encode())
    }
    known = {entry.name for entry in fields(Lineage)} | {TABLE_VERSION, SOFTWARE}
    try:
        lineage = Lineage.from_metadata(footer.metadata or {})
    except (KeyError, ValueError) as error:
        raise _not_ours(store, table, song_id, error) from error
    if lineage.song_id != song_id:
        raise DamagedFile(
            f"{store.uri(table_key(table, song_id))} is the file of another song, {lineage.song_id}"
        )
    return lineage, {name: text for name, text in ours.items() if name not in known}


def read_footer(store: ObjectStore, table: Table, song_id: str) -> Any | None:
    """The footer of the song's file (``pyarrow.parquet.FileMetaData``), by one read of its end.

    None if the song has no file. Raises DamagedFile if the file is not Parquet.
    """
    try:
        return footer_at(store, table_key(table, song_id))
    except FileNotFoundError:
        return None


def footer_at(store: ObjectStore, key: str) -> Any:
    """The footer of a Parquet file (``pyarrow.parquet.FileMetaData``).

    Raises FileNotFoundError if there is no file, and DamagedFile if the file is not Parquet.
    """

    def read(file: BinaryIO) -> Any:
        footer = pq.read_metadata(file)
        footer.schema.to_arrow_schema()  # a part of the footer that is parsed only on demand
        return footer

    return parse(store, key, read)


def footer_fault(store: ObjectStore, table: Table, song_id: str) -> str | None:
    """The reason why the song's file cannot be used, as far as its footer tells; None if it can, or there is none.

    Finds a file that is empty, cut or not Parquet, that belongs to another song or table, or that Bandscope did not
    write. Damage between the blocks of audio is not found.
    """
    try:
        footer = read_footer(store, table, song_id)
        if footer is None:
            return None
        lineage_and_notes(footer, store, table, song_id)
    except ValueError as error:
        return str(error)
    return next(schema_faults(footer, table), None)


def schema_faults(footer: Any, table: Table) -> Iterator[str]:
    """The columns of a file that are not those of its table. A file of another version has fewer columns, or more."""
    found = footer.schema.to_arrow_schema()
    expected = table.schema
    if found.equals(expected):
        return
    shared = min(len(found.names), len(expected.names))
    if not shared or found.names[:shared] != expected.names[:shared]:
        yield f"its columns are {', '.join(found.names)}"
        return
    for name in found.names[:shared]:
        kind, wanted = found.field(name).type, expected.field(name).type
        if kind != wanted:
            yield f"its column {name} has the type {kind} instead of {wanted}"


def _not_ours(store: ObjectStore, table: Table, song_id: str, cause: Exception) -> DamagedFile:
    return DamagedFile(
        f"{store.uri(table_key(table, song_id))} was not written by Bandscope ({cause}); {MADE_AGAIN}"
    )
