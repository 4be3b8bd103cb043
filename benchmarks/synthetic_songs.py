"""Tables of synthetic songs: written by the real writers with the real schemas, from random values.

A song has the tables of a three-minute song of the embedded models, shortened so that a hundred thousand songs take
minutes to write: 2 blocks of 10 s with ``FLAC_BYTES`` of noise for audio, two stems, and 20 windows of tags with 10
instruments each, of the mixture and of both stems; that is about 30 rows of ``instrument_catalog``. One song in 50 is
rejected.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, Lineage
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    DECODED_WAVEFORMS,
    INSTRUMENT_TAGS,
    SONG_TABLES,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
    ArrowTable,
    Table,
    table_key,
)
from bandscope_dagster.storage.tables.song_tables import arrow_table, write_error_row, write_table
from bandscope_dagster.tagging.vocabulary import load_vocabulary

BLOCKS = 2
FRAMES = 441_000  # in a block: 10 s at 44.1 kHz
FLAC_BYTES = 64
SOURCES = ("vocals", "accompaniment")
WINDOWS, WINDOW_S = 20, 3.0
INSTRUMENTS = 10  # per source
TEMPLATES = 100  # of tags; the songs of one template differ in their scores
REJECTED_ONE_IN = 50
SONGS_AT_ONCE = 250  # in one task of a writing process
LAYERS = ("foreground", "middle_ground", "background")
GENRES = ("rock", "jazz", "electronic", "folk", "classical", None)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def song_id(number: int) -> str:
    """The id of a song."""
    return f"take-{number % 977:03}-{hashlib.sha256(str(number).encode()).hexdigest()[:12]}"


def write_songs(storage: str, numbers: Iterable[int], version: int = 0) -> None:
    """Write songs to the local store, on all cores. Another ``version`` of a song has other values."""
    todo = list(numbers)
    parts = [todo[start : start + SONGS_AT_ONCE] for start in range(0, len(todo), SONGS_AT_ONCE)]
    write = partial(_write_part, storage, version)
    with ProcessPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(write, parts), start=1):
            if done % 40 == 0:
                print(f"{done * SONGS_AT_ONCE:,} of {len(todo):,} songs written", flush=True)


def remove_song(store: ObjectStore, number: int) -> None:
    """Delete the song's files."""
    for table in SONG_TABLES:
        store.delete(table_key(table, song_id(number)))


def _write_part(storage: str, version: int, numbers: list[int]) -> None:
    os.fsync = lambda descriptor: None  # pyright: ignore[reportAttributeAccessIssue] - the data may be lost
    store = open_store(storage)
    for number in numbers:
        _write_song(store, number, version)


def _write_song(store: ObjectStore, number: int, version: int) -> None:
    song = song_id(number)
    random = np.random.default_rng([number, version])
    lineage = _lineage(song, version)
    error = "truncated: 3.0 of 180.0 s decode" if number % REJECTED_ONE_IN == 7 else None
    row = _song_row(song, number, random, error)
    write_table(store, SONGS, [row], lineage)
    if error is not None:
        for table in ANALYSIS_TABLES:
            write_error_row(store, table, song, f"upstream: {error}", lineage)
        return
    _write_blocks(store, DECODED_WAVEFORMS, ("mixture",), lineage, random)
    _write_blocks(store, STEMS, SOURCES, lineage, random)
    template = int(random.integers(TEMPLATES))
    for table, sources in ((INSTRUMENT_TAGS, ("mixture",)), (STEM_INSTRUMENT_TAGS, SOURCES)):
        tags = _tags(table, sources, template)
        tags = _with_scores(
            tags.set_column(0, tags.schema.field(0), pa.array([song] * tags.num_rows)), random
        )
        write_table(store, table, tags, lineage)


def _lineage(song: str, version: int) -> Lineage:
    digest = hashlib.sha256(f"{song} {version}".encode()).hexdigest()
    return Lineage(song, digest, digest, "2", "model", digest, '{"overlap": 0.25}', "run", BEGIN)


def _song_row(song: str, number: int, random: np.random.Generator, error: str | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SONGS.names)
    known = {
        "song_id": song,
        "song_hash": hashlib.sha256(song.encode()).hexdigest(),
        "filename": f"Take {number}.flac",
        "owner": f"owner {number % 50}",
        "upload_key": f"uploads/owner {number % 50}/Take {number}.flac",
        "uploaded_at": BEGIN + timedelta(seconds=number),
        "size_bytes": int(random.integers(1_000_000, 40_000_000)),
        "error": error,
    }
    duration = float(random.uniform(30, 400))
    measured = {
        "container": "flac",
        "codec": "flac",
        "sample_rate": 44_100,
        "channels": 2,
        "bit_rate": int(random.integers(300_000, 1_000_000)),
        "duration_s": duration,
        "frames": round(duration * 44_100),
        "mono_mean": float(random.normal(0, 1e-4)),
        "mono_std": float(random.uniform(0.05, 0.2)),
        "peak": float(random.uniform(0.5, 1)),
        "loudness_lufs": float(random.normal(-14, 4)),
        "rms_dbfs": float(random.normal(-16, 4)),
        "title": f"Take {number}",
        "artist": f"Artist {number % 5000}",
        "genre": GENRES[number % len(GENRES)],
    }
    return row | known | (measured if error is None else {})


def _write_blocks(
    store: ObjectStore,
    table: Table,
    sources: tuple[str, ...],
    lineage: Lineage,
    random: np.random.Generator,
) -> None:
    with AudioTableWriter(store, table, lineage) as writer:
        for block in range(BLOCKS):
            rows = [
                {
                    "song_id": lineage.song_id,
                    "block": block,
                    "stem": source,
                    "model": "spleeter-2stems",
                    "start_frame": block * FRAMES,
                    "frames": FRAMES,
                    "sample_rate": 44_100,
                    "channels": 2,
                    "peak": float(random.uniform(0.3, 1)),
                    "rms_dbfs": float(random.normal(-20, 6)),
                    "audio": {"bytes": random.bytes(FLAC_BYTES), "path": f"{block}-{source}.flac"},
                    "gain": 1.0,
                    "error": None,
                }
                for source in sources
            ]
            writer.add([{name: row[name] for name in table.names} for row in rows])
        quality = {
            "residual_db": float(random.normal(-40, 5)),
            "stems": [
                {"stem": source, "share": 0.5, "peak": 0.9, "rms_dbfs": float(random.normal(-20, 6))}
                | {"loudness_lufs": float(random.normal(-18, 5)), "silent": False}
                for source in sources
            ],
        }
        writer.commit({QUALITY_NOTE: json.dumps(quality)} if table is STEMS else {})


def _with_scores(tags: ArrowTable, random: np.random.Generator) -> ArrowTable:
    """The tags with the song's own scores: those of its template plus noise."""
    place = tags.schema.get_field_index("score")
    scores = tags.column(place).to_numpy() + random.normal(0, 0.1, tags.num_rows)  # null is NaN
    moved = pa.array(np.clip(scores, 0, 1).astype(np.float32), from_pandas=True)
    return tags.set_column(place, tags.schema.field(place), moved)


@cache
def _tags(table: Table, sources: tuple[str, ...], template: int) -> ArrowTable:
    """The tags of one template.

    Every fourth template has layers, as from a language model; every fifth has no voice; the first always has a sitar.
    """
    random = np.random.default_rng([template, len(sources)])
    families = load_vocabulary().families
    known = {name: family for family, names in families.items() for name in names}
    instrumental, layered = template % 5 == 0, template % 4 == 0
    names = sorted(name for name in known if not instrumental or known[name] != "voice")
    weights = 1 / np.arange(20, len(names) + 20)  # the first names are the most frequent
    rows: list[dict[str, Any]] = []
    for source in sources:
        drawn = random.choice(len(names), INSTRUMENTS, replace=False, p=weights / weights.sum())
        rare = ["sitar"] if template == 0 else []
        for name in dict.fromkeys([*rare, *(names[place] for place in drawn)]):
            level = random.uniform(0, 1)
            rows += [
                dict.fromkeys(table.names)
                | {
                    "source": source,
                    "instrument": name,
                    "family": known[name],
                    "label": name,
                    "score": None if layered else float(np.clip(random.normal(level, 0.2), 0, 1)),
                    "start_s": window * WINDOW_S,
                    "end_s": (window + 1) * WINDOW_S,
                    "layer": LAYERS[int(random.integers(3))] if layered else None,
                    "model": "qwen2.5-omni" if layered else "musicnn",
                    "detected_at": BEGIN,
                    "mapped": True,
                }
                for window in range(WINDOWS)
                if random.uniform() < 0.7
            ]
    return arrow_table(table, [row | {"song_id": "template"} for row in rows])
