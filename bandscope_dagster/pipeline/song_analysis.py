"""One song on its way through ``analyze``: its blocks become rows, its windows become tags, its files are written.

Audio arrives in the model's thread. Other threads encode blocks, several at once, and one writer thread stores them in
order. What goes wrong with the song, in whatever thread, is kept here and ends this song alone.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import BLOCK_FRAMES, SAMPLE_RATE, Reblock
from bandscope_dagster.audio.flac import Bits, Quantized, dequantize, encode, quantize
from bandscope_dagster.audio.levels import peak, rms_dbfs
from bandscope_dagster.pictures.envelope import EnvelopeMeasure
from bandscope_dagster.pictures.song_picture import draw_song
from bandscope_dagster.pictures.timeline import DRAWN
from bandscope_dagster.pipeline.background import WriteBehind
from bandscope_dagster.pipeline.plan import SongPlan
from bandscope_dagster.separation.out_of_memory import Used
from bandscope_dagster.separation.quality import QualityMeasure, SeparationQuality
from bandscope_dagster.separation.streaming import Separated
from bandscope_dagster.songs.stored_files import StoredFile, read_stored_file
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, TAGS_NOTE, USED_NOTE, Lineage
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS, STEMS, TABLES, ArrowTable
from bandscope_dagster.storage.tables.song_tables import Written, arrow_table, python_rows, write_table
from bandscope_dagster.tagging.source_tags import MIXTURE, SourceTags
from bandscope_dagster.tagging.summary import SUMMARIZED, TagSummary, summarize
from bandscope_dagster.tagging.vocabulary import Vocabulary
from bandscope_dagster.tagging.window_queue import WindowQueue

logger = logging.getLogger(__name__)

Audio = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Workplace:
    """What all songs of a batch share."""

    store: ObjectStore
    writer: WriteBehind[None]
    encoders: Executor  # begins tasks in their order, and outlives the writer, whose tasks wait for it
    models_wait: bool  # whether the models' thread waits while a block is encoded; see ``analyze_songs``
    flac_bits: Bits
    stems: Sequence[str]  # of the separator; empty where none is loaded
    windows: WindowQueue | None
    vocabulary: Vocabulary
    present_from: float  # the score from which a picture shows an instrument


class SongAnalysis:
    """The state of one song between its first block and its stored tables."""

    def __init__(self, plan: SongPlan, workplace: Workplace) -> None:
        self.plan = plan
        self.error: Exception | None = None
        self.written: dict[str, Written] = {}
        self.ended = False  # no more audio comes
        self.finished: Future[None] | None = None
        self.tags: dict[str, TagSummary] = {}  # of tables that are published
        self.quality: SeparationQuality | None = None  # of stems that are published
        self.used: Used | None = None  # for what was separated so far
        self.read_back: dict[str, StoredFile | Exception] = {}  # audio tables that are published
        self.picture: str | None = None  # SVG, of a song whose tables are published
        self.started = perf_counter()
        self._place = workplace
        self._sources: dict[str, SourceTags] = {}
        self._envelopes: defaultdict[str, EnvelopeMeasure] = defaultdict(EnvelopeMeasure)
        self._drawn_tags: ArrowTable | None = None
        self._stems = Reblock(BLOCK_FRAMES)
        self._measure = QualityMeasure(workplace.stems)
        self._measured: dict[str, Future[dict[str, Any]]] = {}  # each stem's latest block
        self._blocks = {"decoded_waveforms": 0, "stems": 0}
        self._writers: dict[str, AudioTableWriter] = {}

    def add_mixture(self, block: Audio) -> None:
        """Take the next 10 s of the mixture, ``(2, frames)`` float32 at 44.1 kHz."""
        self._envelopes[MIXTURE].push(block)
        if "decoded_waveforms" in self.plan.compute:
            self._write_block("decoded_waveforms", {MIXTURE: quantize(block, self._place.flac_bits)})
        if "instrument_tags" in self.plan.compute:
            self._tag(MIXTURE, block)

    def add_separated(self, piece: Separated) -> None:
        """Take finished samples of mixture and stems."""
        self.used = piece.used
        self._measure.add_separated(piece.mixture, piece.stems)
        for block in self._stems.push(piece.stems):
            self._add_stems(block)

    def add_stored_stems(self, stems: Mapping[str, Audio]) -> None:
        """Take a block of stems that were read from their table, each ``(2, frames)``."""
        for stem, block in stems.items():
            self._envelopes[stem].push(block)
            self._tag(stem, block)

    def finish(self) -> None:
        """All audio was taken: the song is committed once its last windows are tagged, which may wait for a batch."""
        if self.error is not None:
            self.fail(self.error)
            return
        last = self._stems.finish()
        if last is not None:
            self._add_stems(last)
        if self._place.windows is not None:
            for source in self._sources.values():
                self._place.windows.add(source, source.finish())
        self.ended = True
        self.settle()

    def settle(self) -> None:
        """Commit the song's files behind the model, if it has ended and no window of it waits for the tagger."""
        sources = self._sources.values()
        if self.ended and self.finished is None and not any(source.waiting for source in sources):
            self.error = self.error or next((source.error for source in sources if source.error), None)
            self.finished = self._place.writer.submit(self._commit)

    def fail(self, error: Exception) -> None:
        """End this song: nothing of it is published."""
        self.error = self.error or error
        self.ended = True
        for source in self._sources.values():
            source.error = source.error or error  # so that no window of it costs the tagger any more time
        self.finished = self._place.writer.submit(self._commit)

    def abandon(self) -> None:
        """Throw away what was written and not published. The writer thread must not be at work on this song."""
        for writer in self._writers.values():
            writer.abort()

    @property
    def seconds(self) -> float:
        """Seconds since the song's first block was taken."""
        return perf_counter() - self.started

    def _add_stems(self, block: Audio) -> None:
        """Store 10 s of every stem, and tag what was stored, so that tags made later from the table are the same."""
        quantized = {
            stem: quantize(samples, self._place.flac_bits)
            for stem, samples in zip(self._place.stems, block, strict=True)
        }
        self._write_block("stems", quantized)
        if "stem_instrument_tags" in self.plan.compute:
            for stem, samples in quantized.items():
                self._tag(stem, dequantize(samples))

    def _tag(self, source: str, block: Audio) -> None:
        queue = self._place.windows
        assert queue is not None, "a tagger is loaded whenever tags are asked for"
        if source not in self._sources:
            self._sources[source] = SourceTags(source, queue.tagger, SAMPLE_RATE)
        queue.add(self._sources[source], self._sources[source].push(block))

    def _write_block(self, table: str, sources: Mapping[str, Quantized]) -> None:
        index = self._blocks[table]
        self._blocks[table] += 1
        rows: list[Future[dict[str, Any]]] = []
        for source, block in sources.items():
            before = self._measured.get(source) if table == STEMS.name else None
            rows.append(self._place.encoders.submit(self._row, table, index, source, block, before))
            if table == STEMS.name:
                self._measured[source] = rows[-1]
        self._behind(lambda: self._writer(table).add([row.result() for row in rows]))
        if self._place.models_wait:
            wait(rows)

    def _row(
        self, table: str, index: int, source: str, block: Quantized, before: Future[dict[str, Any]] | None
    ) -> dict[str, Any]:
        """Encode a block, and measure it where it is a stem's, after the stem's block ``before``."""
        stored = dequantize(block)
        name = f"{self.plan.song_id}-{source}-{index:05d}.flac"
        row: dict[str, Any] = {
            "song_id": self.plan.song_id,
            "block": index,
            "start_frame": index * BLOCK_FRAMES,
            "frames": block.samples.shape[-1],
            "sample_rate": SAMPLE_RATE,
            "channels": block.samples.shape[0],
            "peak": peak(stored),
            "rms_dbfs": rms_dbfs(stored),
            "audio": {"bytes": encode(block), "path": name},
            "gain": block.gain,
            "error": None,
        }
        if table == STEMS.name:
            row |= {"stem": source, "model": self.plan.compute[table].model}
            if before is not None:
                before.result()  # a stem's blocks pass through one filter; what was submitted before ends before
            self._measure.add_stem(source, stored)
            self._envelopes[source].push(stored)
        return row

    def _writer(self, table: str) -> AudioTableWriter:
        if table not in self._writers:
            self._writers[table] = AudioTableWriter(
                self._place.store, TABLES[table], self.plan.compute[table]
            )
        return self._writers[table]

    def _behind(self, task: Callable[[], None]) -> None:
        def run() -> None:
            if self.error is None:
                try:
                    task()
                except Exception as error:
                    self.error = error

        self._place.writer.submit(run)

    def _commit(self) -> None:
        """In the writer thread: publish every table of the song, or nothing where something went wrong."""
        try:
            if self.error is None:
                for table in self.plan.compute:
                    self.written[table] = self._publish(table)
                for table in self._writers:
                    self.read_back[table] = self._read_back(table)
                self.picture = self._draw()
        except Exception as error:
            self.error = error
        finally:
            self.abandon()

    def _publish(self, table: str) -> Written:
        lineage = self.plan.compute[table]
        if table == STEMS.name:
            self.quality = self._measure.finish()
            notes = {QUALITY_NOTE: self.quality.to_json()}
            if self.used is not None:
                notes[USED_NOTE] = self.used.to_json()
            return self._writer(table).commit(notes)
        if table in self._blocks:
            return self._writer(table).commit()
        return self._publish_tags(table, lineage)

    def _publish_tags(self, table: str, lineage: Lineage) -> Written:
        queue = self._place.windows
        assert queue is not None
        of_mixture = table == INSTRUMENT_TAGS.name
        sources = [each for each in self._sources.values() if (each.source == MIXTURE) == of_mixture]
        shared = {"song_id": self.plan.song_id, "model": lineage.model, "detected_at": lineage.created_at}
        rows = (row | shared for source in sources for row in source.rows(self._place.vocabulary))
        tags = arrow_table(TABLES[table], rows)
        self.tags[table] = summarize(sources, python_rows(tags, SUMMARIZED), queue)
        if (
            of_mixture or INSTRUMENT_TAGS.name not in self.tags
        ):  # a picture shows the mixture's where there are any
            self._drawn_tags = tags
        notes = {TAGS_NOTE: self.tags[table].to_json()}
        return write_table(self._place.store, TABLES[table], tags, lineage, notes)

    def _read_back(self, table: str) -> StoredFile | Exception:
        """What the store gives back of a file that was just published; a fault here is told, and stops nothing."""
        try:
            found = read_stored_file(self._place.store, TABLES[table], self.plan.song_id)
        except Exception as error:
            return error
        return FileNotFoundError(f"{table} has no file of it") if found is None else found

    def _draw(self) -> str | None:
        """The mixture, the stems in their order, and the instruments over time; None where there was no audio.

        A picture that cannot be drawn is logged: the song's tables are published already.
        """
        order = [MIXTURE, *self._place.stems]
        sources = sorted(self._envelopes, key=lambda name: order.index(name) if name in order else len(order))
        envelopes = {source: self._envelopes[source].finish() for source in sources}
        if not any(envelope.frames for envelope in envelopes.values()):
            return None
        try:
            tags = None if self._drawn_tags is None else python_rows(self._drawn_tags, DRAWN)
            return draw_song(envelopes, tags, self._place.present_from)
        except Exception:
            logger.exception("%s: its picture cannot be drawn", self.plan.song_id)
            return None
