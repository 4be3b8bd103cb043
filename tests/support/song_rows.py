"""Rows of small songs for the tests of the tables, with real FLAC and simple values."""

import io
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import soundfile

from bandscope_dagster.storage.tables.lineage import Lineage
from bandscope_dagster.storage.tables.schemas import SONGS

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SAMPLE_RATE = 44_100  # Hz


def lineage(song_id: str, **changes: Any) -> Lineage:
    """A complete lineage."""
    values: dict[str, Any] = {
        "song_id": song_id,
        "song_hash": "ab" * 32,
        "input_digest": "cd" * 32,
        "code_version": "1",
        "model": "model ü",
        "model_sha256": "ef" * 32,
        "params": '{"overlap": 0.25}',
        "run_id": "run",
        "created_at": NOW,
    }
    return Lineage(**(values | changes))


def song_row(song_id: str, **changes: Any) -> dict[str, Any]:
    """A row of ``songs``."""
    values: dict[str, Any] = dict.fromkeys(SONGS.names)
    known = {
        "song_id": song_id,
        "filename": "a.wav",
        "sample_rate": SAMPLE_RATE,
        "duration_s": 20.0,
        "uploaded_at": NOW,
    }
    return values | known | changes


def block_rows(
    song_id: str, block: int, stems: tuple[str, ...], seconds: float = 0.5
) -> list[dict[str, Any]]:
    """The rows of one block of ``stems``: noise, 6 dB quieter from stem to stem."""
    noise = np.random.default_rng(block).uniform(-0.5, 0.5, (round(seconds * SAMPLE_RATE), 2))
    rows: list[dict[str, Any]] = []
    for number, stem in enumerate(stems):
        samples = noise / 2**number
        file = io.BytesIO()
        soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        rows.append(
            {
                "song_id": song_id,
                "block": block,
                "stem": stem,
                "model": "separator",
                "start_frame": block * len(samples),
                "frames": len(samples),
                "sample_rate": SAMPLE_RATE,
                "channels": 2,
                "peak": float(np.abs(samples).max()),
                "rms_dbfs": 10 * math.log10(float(np.mean(samples**2))),
                "audio": {"bytes": file.getvalue(), "path": f"{song_id}-{block}-{stem}.flac"},
                "gain": 1.0,
                "error": None,
            }
        )
    return rows


def tag_row(
    song_id: str, instrument: str | None, score: float | None, start_s: float, **changes: Any
) -> dict[str, Any]:
    """A row of ``instrument_tags`` for a window of 3 s."""
    return {
        "song_id": song_id,
        "source": "mixture",
        "instrument": instrument,
        "family": "strings",
        "label": instrument,
        "score": score,
        "start_s": start_s,
        "end_s": start_s + 3.0,
        "layer": None,
        "model": "tagger",
        "detected_at": NOW,
        "error": None,
        "mapped": True,
        "answer": None,
        "note": None,
        "level_dbfs": -20.0,
    } | changes
