"""A song's stems and instruments as files that a producer can open."""

import csv
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.audio.flac import decode_flac
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.storage.audio_tables import read_blocks
from bandscope_dagster.storage.objects import ObjectStore
from bandscope_dagster.storage.schemas import INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS, STEMS
from bandscope_dagster.storage.tables import read_table

SUBTYPES: Final = {"wav": "FLOAT", "flac": "PCM_24"}
"""Floats never clip; FLAC holds integers, so a song whose stems pass full scale is lowered as a whole."""

INSTRUMENT_COLUMNS: Final = ["source", "instrument", "family", "score", "start_s", "end_s", "layer", "model"]


class ExportError(BandscopeError):
    """The song was rejected, so there are no stems; the message says why."""


def export_song(
    store: ObjectStore, song_id: str, to: Path, audio_format: Literal["wav", "flac"] = "wav"
) -> list[Path]:
    """Write ``<to>/<song_id>/<stem>.<format>`` for every stem, and ``instruments.csv``; returns the files.

    All stems keep their true level to each other. The files are moved to their place when all of them are whole, so
    a song that cannot be exported leaves nothing.

    Raises:
        CannotAnalyze: the song has no stems yet.
        ExportError: it never will, because it was rejected.
    """
    peak = 0.0
    for rows in read_blocks(store, STEMS, song_id):
        for row in rows:
            if row["error"] is not None:
                raise ExportError(f"{song_id} has no stems: {row['error']}")
            peak = max(peak, row["peak"])
    factor = 1.0 if audio_format == "wav" or peak <= 1.0 else 1.0 / peak

    folder = to / song_id
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to, prefix=".export-") as unfinished:
        written = _write_stems(store, song_id, Path(unfinished), audio_format, factor)
        written.append(_write_instruments(store, song_id, Path(unfinished)))
        folder.mkdir(exist_ok=True)
        for path in written:
            os.replace(path, folder / path.name)
    return [folder / path.name for path in written]


def _write_stems(
    store: ObjectStore, song_id: str, folder: Path, audio_format: str, factor: float
) -> list[Path]:
    with ExitStack() as files:
        open_files: dict[str, soundfile.SoundFile] = {}
        for stem, samples in _stem_blocks(store, song_id):
            if stem not in open_files:
                path = folder / f"{stem}.{audio_format}"
                open_files[stem] = files.enter_context(
                    soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, SUBTYPES[audio_format])
                )
            open_files[stem].write((samples * np.float32(factor)).T)
        return [folder / f"{stem}.{audio_format}" for stem in open_files]


def _stem_blocks(store: ObjectStore, song_id: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for rows in read_blocks(store, STEMS, song_id):
        for row in rows:
            yield row["stem"], decode_flac(row["audio"]["bytes"], row["gain"])


def _write_instruments(store: ObjectStore, song_id: str, folder: Path) -> Path:
    path = folder / "instruments.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, INSTRUMENT_COLUMNS)
        writer.writeheader()
        for table in (INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS):
            tags = read_table(store, table, song_id, INSTRUMENT_COLUMNS)
            rows: list[dict[str, Any]] = tags.to_pylist() if tags is not None else []
            writer.writerows(row for row in rows if row["instrument"] is not None)
    return path
