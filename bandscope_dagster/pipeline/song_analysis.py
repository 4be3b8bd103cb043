"""One song in ``analyze``: stores its blocks, tags its windows, publishes its tables, draws its picture.

Three kinds of threads work on it. The model's thread passes audio in. Encoder threads turn blocks into rows, several
at once. One writer thread stores the rows in order. An error in any of them fails this song and no other.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import BLOCK_FRAMES, MIXTURE, SAMPLE_RATE, Reblock
from bandscope_dagster.audio.flac import Bits, Quantized, dequantize, quantize
from bandscope_dagster.pictures.song_picture import draw_song
from bandscope_dagster.pipeline.analysis_state import AnalysisState, StateMachine
from bandscope_dagster.pipeline.background import WriteBehind
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed
from bandscope_dagster.pipeline.plan import SongPlan
from bandscope_dagster.pipeline.song_audio import Row, SongAudio
from bandscope_dagster.separation.out_of_memory import CallLimits
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.separation.streaming import Separated
from bandscope_dagster.songs.presence import PresentFrom, present_windows
from bandscope_dagster.songs.stored_files import StoredFile, read_stored_file
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, TAGS_NOTE, USED_NOTE, Lineage
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS, STEMS, TABLES, ArrowTable
from bandscope_dagster.storage.tables.song_tables import Written, arrow_table, python_rows, write_table
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.summary import SUMMARIZED, TagSummary, summarize
from bandscope_dagster.tagging.vocabulary import Vocabulary
from bandscope_dagster.tagging.window_flow import WindowFlow
from bandscope_dagster.tagging.window_queue import WindowQueue

logger = logging.getLogger(__name__)

Audio = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BatchContext:
    """The parts that all songs of a batch share."""

    store: ObjectStore
    writer: WriteBehind[None]
    encoders: Executor  # starts tasks in order; must outlive the writer, whose tasks wait for it
    models_wait: bool  # True: the model's thread waits while a block is encoded; see ``analyze_songs``
    flac_bits: Bits
    stems: Sequence[str]  # of the separator; empty if none is loaded
    windows: WindowQueue | WindowFlow | None
    vocabulary: Vocabulary
    present_from: PresentFrom  # decides which instruments a picture shows


class SongAnalysis:
    """One song from its first block to its outcome; :class:`AnalysisState` lists its states.

    Call the public methods from the model's thread alone.
    """

    def __init__(self, plan: SongPlan, context: BatchContext) -> None:
        self.plan = plan
        self.written: dict[str, Written] = {}  # tables that are published
        self.quality: SeparationQuality | None = None  # of stems that are published
        self.tags: dict[str, TagSummary] = {}  # of tag tables that are published
        self.picture: str | None = None  # SVG; drawn once all tables are published
        self._context = context
        self._machine = StateMachine()
        self._started = perf_counter()
        self._used: CallLimits | None = None  # for the audio that was separated so far
        self._read_back: dict[str, StoredFile | Exception] = {}  # audio tables that are published
        self._audio = SongAudio(plan, context.store, context.encoders, context.stems)
        self._sources: dict[str, SourceTags] = {}
        self._drawn_tags: ArrowTable | None = None
        self._tagged_at = datetime.now(UTC)  # set when the last window is tagged
        self._stems, self._mixture = Reblock(BLOCK_FRAMES), Reblock(BLOCK_FRAMES)

    @property
    def state(self) -> AnalysisState:
        """The song's current state."""
        return self._machine.state

    @property
    def error(self) -> Exception | None:
        """The first error of the song, or None."""
        return self._machine.error

    def add_mixture(self, block: Audio) -> None:
        """Take the next 10 s of the mixture, ``(2, frames)`` float32 at 44.1 kHz."""
        self._audio.envelopes[MIXTURE].push(block)
        if "decoded_waveforms" in self.plan.compute:
            self._write_block("decoded_waveforms", {MIXTURE: quantize(block, self._context.flac_bits)})
        if "instrument_tags" in self.plan.compute:
            self._tag(MIXTURE, block)

    def add_separated(self, piece: Separated) -> None:
        """Take finished samples of the mixture and the stems."""
        self._used = piece.used
        mixture = self._mixture.push(piece.mixture)
        for stems, of_mixture in zip(self._stems.push(piece.stems), mixture, strict=True):
            self._add_stems(stems, of_mixture)

    def add_stored_stems(self, stems: Mapping[str, Audio]) -> None:
        """Take one block of each stem, read from the stems table, each ``(2, frames)``."""
        for stem, block in stems.items():
            self._audio.envelopes[stem].push(block)
            self._tag(stem, block)

    def finish(self) -> None:
        """End the audio. The song is committed once its last windows are tagged, which may wait for a full batch."""
        if self.state is not AnalysisState.READING:
            return
        last, of_mixture = self._stems.finish(), self._mixture.finish()
        if last is not None and of_mixture is not None:
            self._add_stems(last, of_mixture)
        if self._context.windows is not None:
            for source in self._sources.values():
                self._context.windows.add(source, source.finish())
        self._machine.move(AnalysisState.TAGGING)
        self.advance()

    def advance(self) -> None:
        """Commit the song if no window of it waits any more; tag nothing more of a song that has failed.

        Call it after the tagger has run, and regularly: the writer thread may have failed the song.
        """
        sources = self._sources.values()
        if self.error is not None:
            for source in sources:
                source.error = source.error or self.error
        elif self.state is AnalysisState.TAGGING and not any(source.waiting for source in sources):
            error = next((source.error for source in sources if source.error), None)
            if error is not None:
                self.fail(error)
            elif self._machine.move(AnalysisState.COMMITTING):
                self._tagged_at = datetime.now(UTC)
                self._context.writer.submit(self._commit)

    def fail(self, error: Exception) -> None:
        """End the song, and publish nothing of it. Does nothing once the song is being committed or has failed."""
        if self._machine.move(AnalysisState.FAILING, error):
            self._context.writer.submit(lambda: self._end(error))
        self.advance()

    def wait_for_writer(self) -> None:
        """Block until the writer thread has published or discarded the song's files, if that was begun."""
        self._machine.wait_for_writer()

    def outcome(self) -> SongAnalyzed | SongFailed:
        """The song's outcome; call it once the state is DONE or FAILED."""
        if self.error is not None:
            return SongFailed(self.plan.song_id, self.error)
        return SongAnalyzed(
            plan=self.plan,
            written=self.written,
            seconds=perf_counter() - self._started,
            quality=self.quality,
            used=self._used if self.quality is not None else None,
            tags=self.tags,
            read_back=self._read_back,
            picture=self.picture,
        )

    def discard(self) -> None:
        """Discard files that are not published. The writer thread must not be working on this song."""
        self._audio.discard()

    def _add_stems(self, block: Audio, mixture: Audio) -> None:
        """Store 10 s of every stem; measure and tag the stored samples, so that readers of the tables find the same."""
        bits = self._context.flac_bits
        quantized = {
            stem: quantize(samples, bits) for stem, samples in zip(self._context.stems, block, strict=True)
        }
        self._write_block("stems", quantized)
        stored = {stem: dequantize(samples) for stem, samples in quantized.items()}
        self._audio.quality.add_separated(dequantize(quantize(mixture, bits)), list(stored.values()))
        if "stem_instrument_tags" in self.plan.compute:
            for stem, samples in stored.items():
                self._tag(stem, samples)

    def _tag(self, source: str, block: Audio) -> None:
        queue = self._context.windows
        assert queue is not None, "a tagger is loaded whenever tags are requested"
        if source not in self._sources:
            self._sources[source] = SourceTags(source, queue.tagger, SAMPLE_RATE)
        queue.add(self._sources[source], self._sources[source].push(block))

    def _write_block(self, table: str, sources: Mapping[str, Quantized]) -> None:
        rows = self._audio.encode(table, sources)
        self._context.writer.submit(lambda: self._store(table, rows))
        if self._context.models_wait:
            wait(rows)

    def _store(self, table: str, rows: Sequence[Future[Row]]) -> None:
        """In the writer thread: add one block to its table."""
        if self.error is None:
            try:
                self._audio.store(table, rows)
            except Exception as error:
                self._end(error)

    def _commit(self) -> None:
        """In the writer thread: publish the tables in order, up to the first that cannot be published."""
        try:
            for table in self.plan.compute:
                self.written[table] = self._publish(table)
            for table in self._audio.tables:
                self._read_back[table] = self._read_stored(table)
            self.picture = self._draw()
        except Exception as error:
            self._end(error)
        else:
            self._machine.move(AnalysisState.DONE)

    def _end(self, error: Exception) -> None:
        """In the writer thread: discard files that are not published, and end the song as failed."""
        try:
            self.discard()
        except Exception:
            logger.exception("%s: its unfinished files cannot be discarded", self.plan.song_id)
        self._machine.move(AnalysisState.FAILED, error)

    def _publish(self, table: str) -> Written:
        lineage = self.plan.compute[table]
        if TABLES[table].kind == "tags":
            return self._publish_tags(table, lineage)
        notes: dict[str, str] = {}
        if table == STEMS.name:
            self.quality = quality = self._audio.quality.finish()
            notes[QUALITY_NOTE] = quality.to_json()
            if self._used is not None:
                notes[USED_NOTE] = self._used.to_json()
        return self._audio.commit(table, notes)

    def _publish_tags(self, table: str, lineage: Lineage) -> Written:
        queue = self._context.windows
        assert queue is not None
        of_mixture = table == INSTRUMENT_TAGS.name
        sources = [each for each in self._sources.values() if (each.source == MIXTURE) == of_mixture]
        shared = {"song_id": self.plan.song_id, "model": lineage.model, "detected_at": self._tagged_at}
        rows = (row | shared for source in sources for row in source.rows(self._context.vocabulary))
        tags = arrow_table(TABLES[table], rows)
        self.tags[table] = summarize(sources, python_rows(tags, SUMMARIZED), queue)
        if of_mixture or INSTRUMENT_TAGS.name not in self.tags:  # the picture prefers the mixture's tags
            self._drawn_tags = tags
        notes = {TAGS_NOTE: self.tags[table].to_json()}
        return write_table(self._context.store, TABLES[table], tags, lineage.written_now(), notes)

    def _read_stored(self, table: str) -> StoredFile | Exception:
        """The file as the store returns it right after publishing, or the error, which does not fail the song."""
        try:
            found = read_stored_file(self._context.store, TABLES[table], self.plan.song_id)
        except Exception as error:
            return error
        return FileNotFoundError(f"{table} has no file of this song") if found is None else found

    def _draw(self) -> str | None:
        """The mixture, the stems in order, and the instruments over time, as SVG; None if there was no audio.

        An error in drawing is logged and does not fail the song: its tables are published already.
        """
        order = [MIXTURE, *self._context.stems]
        sources = sorted(
            self._audio.envelopes, key=lambda name: order.index(name) if name in order else len(order)
        )
        envelopes = {source: self._audio.envelopes[source].finish() for source in sources}
        if not any(envelope.frames for envelope in envelopes.values()):
            return None
        try:
            return draw_song(envelopes, self._present_windows())
        except Exception:
            logger.exception("%s: the picture cannot be drawn", self.plan.song_id)
            return None

    def _present_windows(self) -> Iterator[dict[str, Any]] | None:
        """The windows that a picture shows; None if the song was not tagged."""
        if self._drawn_tags is None:
            return None
        tags = pl.DataFrame(self._drawn_tags).lazy()
        return present_windows(tags, self._context.present_from).collect().iter_rows(named=True)
