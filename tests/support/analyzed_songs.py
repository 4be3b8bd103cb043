"""Songs for an analysis with ``known_models``: uploads, plans and stored tables."""

import hashlib
import io
from collections.abc import Collection

import polars as pl
import soundfile
from known_models import Audio, Level, Shares

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES, SongPlan, SongPlanner
from bandscope_dagster.storage.objects.protocol import ObjectStore


def upload(
    store: ObjectStore,
    name: str,
    audio: Audio,
    *,
    format: str = "WAV",
    tables: Collection[str] = ANALYSIS_TABLES,
) -> SongPlan:
    """Upload a song, by default as WAV of 32-bit floats, and plan its tables."""
    file = io.BytesIO()
    subtype = {"WAV": "FLOAT", "MP3": "MPEG_LAYER_III"}[format]
    soundfile.write(file, audio.T, SAMPLE_RATE, subtype, format=format)
    with store.create(f"uploads/{name}") as pending:
        pending.write(file.getvalue())
    return plan(store, name, hashlib.sha256(file.getvalue()).hexdigest(), tables)


def plan(
    store: ObjectStore,
    song_id: str,
    song_hash: str = "ab" * 32,
    tables: Collection[str] = ANALYSIS_TABLES,
) -> SongPlan:
    """The plan of a song that the asset ``songs`` accepted."""
    row = {
        "song_id": song_id,
        "song_hash": song_hash,
        "upload_key": f"uploads/{song_id}",
        "duration_s": None,
        "mono_mean": 0.0,
        "mono_std": 0.25,
        "rms_dbfs": -12.0,
        "error": None,
    }
    planner = SongPlanner("run", separator=Shares().identity, tagger=Level().identity)
    return planner.plan(store, row, tables, reuse=False)


def published(store: ObjectStore, song_id: str) -> list[str]:
    """The tables that have a file of the song, in write order."""
    return [table for table in ANALYSIS_TABLES if store.head(f"{table}/{song_id}.parquet")]


def rows(store: ObjectStore, table: str, song_id: str) -> pl.DataFrame:
    """The stored rows of one song."""
    return pl.read_parquet(io.BytesIO(store.read(f"{table}/{song_id}.parquet")))
