"""Hear a song as Bandscope does: separate it, tag the mixture and the stems, and judge what is present."""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import MIXTURE, SAMPLE_RATE
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.spleeter import Spleeter
from bandscope_dagster.separation.streaming import Separated, StreamingSeparation
from bandscope_dagster.songs.presence import instruments_of
from bandscope_dagster.storage.tables.frames import empty_frame
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS
from bandscope_dagster.tagging.instruments import NAME, Instruments
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from bandscope_dagster.tagging.window_queue import WindowQueue

Audio = NDArray[np.float32]
BLOCK: Final = 10 * SAMPLE_RATE  # frames that are pushed at once


def heard_in(mix: Audio) -> dict[str, list[str]]:
    """Instrument that is present in ``(2, frames)`` at 44.1 kHz → its sources, each with its mean score."""
    separator, tagger = Spleeter("cpu", SeparationOptions()), Instruments("cpu")
    stream = StreamingSeparation(separator)
    stream.open("song", Normalisation())
    results = [*stream.push("song", mix), *stream.finish("song"), *stream.flush()]
    stems = np.concatenate([each.stems for each in results if isinstance(each, Separated)], axis=-1)
    sources = {MIXTURE: mix, **dict(zip(separator.stems, stems, strict=True))}
    queue = WindowQueue(tagger)
    rows: list[dict[str, object]] = []
    for name, audio in sources.items():
        tags = SourceTags(name, tagger, SAMPLE_RATE)
        for start in range(0, audio.shape[1], BLOCK):
            queue.add(tags, tags.push(audio[:, start : start + BLOCK]))
        queue.add(tags, tags.finish())
        queue.flush()
        rows += [row | {"song_id": "song", "model": NAME} for row in tags.rows(load_vocabulary())]
    table = pl.DataFrame(rows, schema_overrides=empty_frame(INSTRUMENT_TAGS).schema, infer_schema_length=None)
    found = (
        instruments_of(table.lazy(), present_from(None, AUDIBLE_DB)).filter(pl.col("windows") > 0).collect()
    )
    heard: dict[str, list[str]] = {}
    for name, source, score in found.select("instrument", "source", "score").sort("instrument").rows():
        heard.setdefault(name, []).append(f"{source} {score:.2f}")
    return heard
