"""A store as Croissant 1.1: JSON-LD by which tools for machine learning find and read its tables.

The format: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. All of it comes from the definitions of
the tables, so no library is needed to write it; ``mlcroissant`` validates it in the tests. Paths are relative to the
description, which is at the root of the store: the store can be copied as a whole.
"""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import pyarrow as pa

from bandscope_dagster.describing.holdings import Holdings
from bandscope_dagster.describing.own_file import identified
from bandscope_dagster.describing.stated import Stated
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.columns import AUDIO, Column
from bandscope_dagster.storage.tables.schemas import CATALOG_TABLES, SONG_CATALOG, Table, catalog_key

CROISSANT_KEY: Final = "croissant.json"
CONFORMS_TO: Final = "http://mlcommons.org/croissant/1.1"
PARQUET: Final = "application/x-parquet"

Json = dict[str, Any]

CONTEXT: Final[Json] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{
        name: f"cr:{name}"
        for name in (
            *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field"),
            *("fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset"),
            *(
                "jsonPath",
                "key",
                "md5",
                "parentField",
                "path",
                "recordSet",
                "references",
                "regex",
                "repeated",
            ),
            *("replace", "samplingRate", "separator", "source", "subField", "transform"),
        )
    },
}
"""The names in a description. It is part of the format, and every description repeats it."""

DATA_TYPES: Final = {
    pa.string(): "sc:Text",
    pa.bool_(): "sc:Boolean",
    pa.int32(): "cr:Int32",
    pa.int64(): "cr:Int64",
    pa.float32(): "cr:Float32",
    pa.float64(): "cr:Float64",
    pa.timestamp("us", tz="UTC"): "sc:DateTime",
}
"""Arrow's type of a column → its type in Croissant."""


def croissant(store: ObjectStore, holdings: Holdings, stated: Stated, written_at: datetime) -> Json:
    """The description of a store. The digests of the catalogs are those of their files now.

    A refresh replaces a catalog, and then its digest is another one: describe the store again, or a copy of it.
    """
    as_of = holdings.as_of
    optional = {
        "license": stated.licence,
        "url": stated.url,
        "citeAs": stated.citation,
        "creator": None if stated.creator is None else {"@type": "sc:Person", "name": stated.creator},
    }
    return identified(
        {
            "@context": CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": CONFORMS_TO,
            "name": stated.name,
            "description": _description(holdings, stated),
            "version": f"{as_of.year}.{as_of.month}.{as_of.day}",
            "dateModified": as_of.isoformat(timespec="seconds"),
            "datePublished": written_at.date().isoformat(),
            **{name: value for name, value in optional.items() if value is not None},
            "keywords": ["music", "source separation", "instrument recognition", "parquet", "bandscope"],
            "distribution": [_files_of(store, table) for table in holdings.tables],
            "recordSet": [_record_set(table) for table in holdings.tables],
        }
    )


def _description(holdings: Holdings, stated: Stated) -> str:
    counts = ", ".join(f"{songs:,} {status}" for status, songs in holdings.statuses.items())
    models = ", ".join(model.name for model in holdings.models) or "none yet"
    rights = "" if stated.licence else " The licence of the songs is not stated: ask the owner of the store."
    return (
        f"{holdings.songs:,} songs ({counts}), {holdings.hours:,.2f} hours with all results, separated into stems and "
        f"tagged with instruments by machine. Models: {models}. Tags are opinions of a model and no ground truth."
        f"{rights}"
    )


def _files_of(store: ObjectStore, table: Table) -> Json:
    """The file of a catalog with its digest, or the set of the files of all songs."""
    if table not in CATALOG_TABLES:
        return {
            "@type": "cr:FileSet",
            "@id": _files_id(table),
            "name": _files_id(table),
            "description": f"One file per song. {table.description}",
            "encodingFormat": PARQUET,
            "includes": f"{table.name}/*.parquet",
        }
    key = catalog_key(table)
    digest, size = hashlib.sha256(), 0
    for chunk in store.chunks(key):
        digest.update(chunk)
        size += len(chunk)
    return {
        "@type": "cr:FileObject",
        "@id": _files_id(table),
        "name": _files_id(table),
        "description": f"One file for all songs. {table.description}",
        "contentUrl": key,
        "contentSize": f"{size} B",
        "encodingFormat": PARQUET,
        "sha256": digest.hexdigest(),
    }


def _files_id(table: Table) -> str:
    return f"{table.name}-{'file' if table in CATALOG_TABLES else 'files'}"


def _record_set(table: Table) -> Json:
    key = {"key": {"@id": f"{table.name}/song_id"}} if table is SONG_CATALOG else {}
    return {
        "@type": "cr:RecordSet",
        "@id": table.name,
        "name": table.name,
        "description": f"{table.description} {table.nulls}",
        **key,
        "field": [_field(table, column) for column in table.columns],
    }


def _field(table: Table, column: Column) -> Json:
    place = f"{table.name}/{column.name}"
    described = {
        "description": f"{column.description}. Unit: {column.unit}" if column.unit else column.description
    }
    source = _source(table, column.name)
    if column.type == AUDIO:
        bytes_of_struct = {**source, "transform": {"jsonPath": "bytes"}}
        return _named(
            place, column.name, described | {"dataType": "sc:AudioObject", "source": bytes_of_struct}
        )
    if not pa.types.is_list(column.type):
        return _named(place, column.name, described | {"dataType": DATA_TYPES[column.type], "source": source})
    items = {"isArray": True, "arrayShape": "-1"}
    if not pa.types.is_struct(column.type.value_type):
        kind = DATA_TYPES[column.type.value_type]
        return _named(place, column.name, described | {"dataType": kind, "source": source} | items)
    parts = list(_parts(table, column, column.type.value_type))
    return _named(place, column.name, described | {"subField": parts} | items)


def _parts(table: Table, column: Column, struct: Any) -> Iterator[Json]:
    """The fields of the structs in a list; a part that is a list itself is an array."""
    for child in struct:
        is_list = pa.types.is_list(child.type)
        kind = DATA_TYPES[child.type.value_type if is_list else child.type]
        source = {**_source(table, column.name), "transform": {"jsonPath": child.name}}
        described = {"description": f"{child.name} of each element of {column.name}", "dataType": kind}
        shape = {"isArray": True, "arrayShape": "-1"} if is_list else {}
        yield _named(
            f"{table.name}/{column.name}/{child.name}", child.name, described | {"source": source} | shape
        )


def _source(table: Table, column: str) -> Json:
    kind = "fileObject" if table in CATALOG_TABLES else "fileSet"
    return {kind: {"@id": _files_id(table)}, "extract": {"column": column}}


def _named(place: str, name: str, rest: Mapping[str, Any]) -> Json:
    return {"@type": "cr:Field", "@id": place, "name": name, **rest}
