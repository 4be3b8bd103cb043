"""What a file was made from, kept in the file itself: the key-value metadata of its Parquet footer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

from bandscope_dagster.storage.objects import ObjectChanged, ObjectStore, with_retries
from bandscope_dagster.storage.schemas import Table, table_key

PREFIX = "bandscope."


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


def read_lineage(store: ObjectStore, table: Table, song_id: str) -> Lineage | None:
    """The lineage of the song's file, from its footer alone; None where the song has no file.

    A file that is not Parquet or has no lineage raises ValueError: it was not written by Bandscope.
    """
    key = table_key(table, song_id)

    def read() -> Mapping[bytes, bytes]:
        with store.open(key) as file:
            return pq.read_metadata(file).metadata or {}

    try:
        # The footer of an object that is replaced meanwhile is read again, from the new one.
        metadata = with_retries(read, lambda error: isinstance(error, ObjectChanged))
        return Lineage.from_metadata(metadata)
    except FileNotFoundError:
        return None
    except (pa.ArrowInvalid, KeyError) as error:
        raise ValueError(
            f"{store.uri(key)} was not written by Bandscope ({error}); delete it and materialize "
            f"{table.name} for {song_id} again"
        ) from error
