"""The holdings of a store: its songs by status, its tables, and the models and software that made them.

Counts come from the catalogs, so they are those of their last refresh. The versions of models and software come from
the footers of some songs, because reading all would take minutes in a large store.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import polars as pl

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.models.inventory import Model, load_inventory
from bandscope_dagster.separation.presets import MODELS
from bandscope_dagster.songs.status import Status
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.catalog_state import read_rows
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.lineage import PREFIX, Maker, footer_at, lineage_and_notes, read_footer
from bandscope_dagster.storage.tables.schemas import (
    INSTRUMENT_TAGS,
    SONG_CATALOG,
    SONG_ERRORS,
    STEMS,
    TABLES,
    Table,
    catalog_key,
)
from bandscope_dagster.storage.tables.song_files import FOOTERS_AT_ONCE

SAMPLED_SONGS: Final = 200  # songs with results of a model whose footers are read
USABLE: Final = (Status.OK.value, Status.WARNING.value)
"""The statuses of songs with all results."""


class NothingToDescribe(BandscopeError):
    """The store has no catalog of songs; the message says how to get one."""


@dataclass(frozen=True, slots=True)
class UsedModel:
    """A model that made results in the store."""

    name: str
    kind: str  # "separator" or "tagger"
    songs: int
    weights: tuple[str, ...]  # SHA-256, of the sampled songs; the most frequent first
    known: Model | None  # its entry in the inventory; None for a model that this version does not know
    members: Mapping[str, Model | None]  # of a preset, in the sampled songs: name → its entry, likewise
    served: tuple[
        str, ...
    ]  # "NAME, revision X" on servers, whose weights have no digest; of the sampled songs


@dataclass(frozen=True, slots=True)
class Holdings:
    """The holdings of a store."""

    as_of: datetime  # UTC, of the last refresh of song_catalog
    songs: int
    statuses: Mapping[str, int]  # status → songs
    hours: float  # of songs with all results
    reasons: Mapping[str, int]  # reason of an error → songs
    models: Sequence[UsedModel]  # separators, then taggers; the most used first
    software: Mapping[str, Sequence[str]]  # package → versions, of the sampled songs
    sampled: int  # songs whose footers were read
    tables: Sequence[Table]  # those that have files


def read_holdings(store: ObjectStore) -> Holdings:
    """Count what the store holds.

    Raises:
        NothingToDescribe: the store has no ``song_catalog``, or it cannot be read.
    """
    columns = ("song_id", "status", "duration_s", "separator", "tagger")
    songs = read_rows(store, SONG_CATALOG, columns)
    if songs is None:
        raise NothingToDescribe(
            f"{store.uri(catalog_key(SONG_CATALOG))} is missing or damaged: there are no counts to describe the store "
            "by. `bandscope run` makes it"
        )
    errors = read_rows(store, SONG_ERRORS, ("song_id", "reason"))
    seen = _sample(store, songs)
    return Holdings(
        as_of=_refreshed_at(store),
        songs=songs.height,
        statuses=_counts(songs["status"]),
        hours=float(songs.filter(pl.col("status").is_in(USABLE))["duration_s"].sum()) / 3600,
        reasons={} if errors is None else _counts(errors.unique()["reason"]),
        models=[*_models(songs["separator"], "separator", seen), *_models(songs["tagger"], "tagger", seen)],
        software={package: list(found) for package, found in seen.software.items()},
        sampled=seen.songs,
        tables=[table for table in TABLES.values() if _has_files(store, table)],
    )


_Origin: TypeAlias = tuple[str, str, Mapping[str, Any], Mapping[str, str]]
"""Model, SHA-256 of its weights, its parameters, and package → version."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The footers of some songs."""

    songs: int
    weights: Mapping[str, Counter[str]]  # model → SHA-256 → songs
    software: Mapping[str, Sequence[str]]  # package → versions
    members: Mapping[str, set[str]]  # preset → names of its models
    served: Mapping[str, set[str]]  # model → its names and revisions on servers


def _sample(store: ObjectStore, songs: pl.DataFrame) -> _Seen:
    computed = songs.filter(pl.col("separator").is_not_null() | pl.col("tagger").is_not_null())
    chosen = computed["song_id"].gather_every(
        max(1, -(-computed.height // SAMPLED_SONGS))
    )  # from first to last
    weights: dict[str, Counter[str]] = {}
    software: dict[str, set[str]] = {}
    members: dict[str, set[str]] = {}
    served: dict[str, set[str]] = {}

    def origins(song_id: str) -> list[_Origin]:
        return list(_origins(store, song_id))

    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        for of_song in pool.map(origins, chosen):
            for model, sha256, params, packages in of_song:
                members.setdefault(model, set()).update(params.get(MODELS) or ())
                if name := params.get("served_model"):
                    served.setdefault(model, set()).add(f"{name}, revision {params.get('revision')}")
                weights.setdefault(model, Counter())[sha256] += 1
                for package, version in packages.items():
                    software.setdefault(package, set()).add(version)
    versions = {package: sorted(found) for package, found in software.items()}
    return _Seen(len(chosen), weights, versions, members, served)


def _origins(store: ObjectStore, song_id: str) -> Iterator[_Origin]:
    """The model, its weights and the software of the song's stems and tags. Files that cannot be read have none."""
    for table in (STEMS, INSTRUMENT_TAGS):
        try:
            footer = read_footer(store, table, song_id)
            if footer is None:
                continue
            lineage, _ = lineage_and_notes(footer, store, table, song_id)
        except DamagedFile:
            continue
        if lineage.model:
            yield lineage.model, lineage.model_sha256, json.loads(lineage.params), Maker.of(footer).software


def _models(names: pl.Series, kind: str, seen: _Seen) -> Iterator[UsedModel]:
    inventory = load_inventory()
    for name, songs in _counts(names).items():
        weights = tuple(sha256 for sha256, _ in seen.weights.get(name, Counter()).most_common())
        members = {member: inventory.get(member) for member in sorted(seen.members.get(name, ()))}
        served = tuple(sorted(seen.served.get(name, ())))
        yield UsedModel(name, kind, songs, weights, inventory.get(name), members, served)


def _counts(values: pl.Series) -> dict[str, int]:
    """Value → its number, the most frequent first; nulls are not counted."""
    counted = (
        values.drop_nulls().value_counts(name="number").sort("number", values.name, descending=[True, False])
    )
    return dict(counted.iter_rows())


def _refreshed_at(store: ObjectStore) -> datetime:
    """The time in the footer of ``song_catalog``; now, if an earlier version wrote it without."""
    metadata: Mapping[bytes, bytes] = footer_at(store, catalog_key(SONG_CATALOG)).metadata or {}
    stored: Any = metadata.get(f"{PREFIX}created_at".encode())
    return datetime.now(UTC) if stored is None else datetime.fromisoformat(stored.decode())


def _has_files(store: ObjectStore, table: Table) -> bool:
    return any(found.key.endswith(".parquet") for found in store.list(table.name))
