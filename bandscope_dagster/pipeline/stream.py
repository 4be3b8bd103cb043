"""The stream inside ``analyze``: reads songs ahead of the models, runs the models, stores results behind them."""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.allocator import FreedMemory
from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.audio.cage.caged_song import caged
from bandscope_dagster.audio.flac import Bits
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.pipeline.analysis_state import AnalysisState
from bandscope_dagster.pipeline.background import WriteBehind, prefetch
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed
from bandscope_dagster.pipeline.plan import SongPlan
from bandscope_dagster.pipeline.progress import Stage, report
from bandscope_dagster.pipeline.song_analysis import BatchContext, SongAnalysis
from bandscope_dagster.pipeline.stop import is_stopping
from bandscope_dagster.pipeline.uploads import fetch_upload
from bandscope_dagster.separation.ensemble import AnySeparator, streaming_of
from bandscope_dagster.separation.streaming import Separated, SeparationFailed
from bandscope_dagster.songs.presence import PresentFrom
from bandscope_dagster.songs.stored_audio import stored_samples
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import read_blocks
from bandscope_dagster.storage.tables.schemas import STEMS
from bandscope_dagster.tagging.protocol import ON_A_SERVER, AnyTagger
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from bandscope_dagster.tagging.window_flow import queue_for

BLOCKS_AHEAD: Final = 4  # decoded blocks of 10 s (3.5 MB each) in the queue to the model, of any song
BLOCKS_BEHIND: Final = 4  # blocks in the queue to the encoders and the writer; if it is full, the model waits
ENCODERS: Final = os.cpu_count() or 1  # threads; libsndfile releases the interpreter's lock

Audio = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Started:
    plan: SongPlan


@dataclass(frozen=True, slots=True)
class _Mixture:
    song_id: str
    block: Audio


@dataclass(frozen=True, slots=True)
class _StoredStems:
    song_id: str
    stems: Mapping[str, Audio]


@dataclass(frozen=True, slots=True)
class _Ended:
    song_id: str


_Read = _Started | _Mixture | _StoredStems | _Ended | SongFailed


def analyze_songs(
    plans: Iterable[SongPlan],
    store: ObjectStore,
    limits: Limits,
    flac_bits: Bits,
    separator: AnySeparator | None,
    tagger: AnyTagger | None,
    present_from: PresentFrom,
    stopped: threading.Event | None = None,
) -> Iterator[SongAnalyzed | SongFailed]:
    """Compute the tables of every plan; yield one outcome per song, as soon as the song is done.

    Pictures show the instruments that are present by ``present_from``. Once ``stopped`` is set, or the process is asked
    to stop, the stream ends after the current block; songs that are not done then have no outcome.

    Several threads work at once: one reads and decodes up to ``BLOCKS_AHEAD`` blocks ahead, this one runs the models,
    ``ENCODERS`` threads encode, and one stores. The queues and the models' batches bound the memory; the length of a
    song does not matter. An error that concerns one song becomes that song's ``SongFailed``.

    A tagger on a server answers while other songs are read; a song is done once its last answer is there.

    If all models here run on the CPU, this thread waits while a block is encoded, on all cores. If both ran at once,
    each encoder would delay one of torch's threads, and all other torch threads would spin until it is done: on two
    cores, HTDemucs then takes 5 % longer than model and encoding one after the other.
    """

    def ends() -> bool:
        return is_stopping() or (stopped is not None and stopped.is_set())

    devices = {model.device for model in (separator, tagger) if model is not None} - {ON_A_SERVER}
    writer = WriteBehind[None](BLOCKS_BEHIND)
    encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="encode")
    context = BatchContext(
        store=store,
        writer=writer,
        encoders=encoders,
        models_wait=devices == {"cpu"},
        flac_bits=flac_bits,
        stems=separator.stems if separator else (),
        windows=queue_for(tagger, ends) if tagger else None,
        vocabulary=load_vocabulary(),
        present_from=present_from,
    )
    batch = _Batch(context, separator)
    freed = FreedMemory()
    try:
        with writer:
            for item in prefetch(_read_songs(plans, store, limits), BLOCKS_AHEAD):
                if ends():
                    return
                freed.give_back()
                batch.take(item)
                _report(item)
                yield from batch.done(wait=False)
            batch.separate_rest()
            while batch.tag_more():
                yield from batch.done(wait=False)
            yield from batch.done(wait=True)
    finally:
        encoders.shutdown(cancel_futures=True)
        batch.close()


class _Batch:
    """The songs between their first block and their outcome."""

    def __init__(self, context: BatchContext, separator: AnySeparator | None) -> None:
        self._context = context
        self._separation = streaming_of(separator) if separator else None
        self._songs: dict[str, SongAnalysis] = {}

    def take(self, item: _Read) -> None:
        """Pass one item to its song; an error that this raises fails the song."""
        if isinstance(item, _Started):
            plan = item.plan
            self._songs[plan.song_id] = SongAnalysis(plan, self._context)
            if self._separation is not None and "stems" in plan.compute:
                self._separation.open(plan.song_id, plan.normalisation)
            return
        song = self._songs.get(item.song_id)
        if song is None or song.state is not AnalysisState.READING:
            return  # the song has failed, and may have been yielded already: skip the rest of its audio
        try:
            self._pass_on(song, item)
        except Exception as error:
            self._fail(song, error)

    def separate_rest(self) -> None:
        """Separate what waits for a full batch."""
        if self._separation is not None:
            self._separated(self._separation.flush())

    def tag_more(self) -> bool:
        """Tag some of the windows that wait, or wait for answers about them; False if none waits."""
        return self._context.windows is not None and self._context.windows.collect(wait=True)

    def done(self, *, wait: bool) -> Iterator[SongAnalyzed | SongFailed]:
        """The outcomes of songs that are done or failed; with ``wait``, of all songs."""
        if self._context.windows is not None:
            self._context.windows.collect(wait=False)
        for song in list(self._songs.values()):
            song.advance()
            if wait:
                song.wait_for_writer()
            if song.state in (AnalysisState.DONE, AnalysisState.FAILED):
                self._drop(song)  # the writer thread may have failed it while it was being separated
                del self._songs[song.plan.song_id]
                yield song.outcome()

    def close(self) -> None:
        """Ask about no further window, and discard unfinished files of songs without an outcome.

        Only an interrupt leaves such songs.
        """
        if self._context.windows is not None:
            self._context.windows.close()
        for song in self._songs.values():
            song.discard()

    def _pass_on(self, song: SongAnalysis, item: _Mixture | _StoredStems | _Ended | SongFailed) -> None:
        song_id = song.plan.song_id
        separation = self._separation if "stems" in song.plan.compute else None
        if isinstance(item, _Mixture):
            song.add_mixture(item.block)
            if separation is not None:
                self._separated(separation.push(song_id, item.block))
        elif isinstance(item, _StoredStems):
            song.add_stored_stems(item.stems)
        elif isinstance(item, SongFailed):
            self._fail(song, item.error)
        elif separation is not None:
            self._separated(separation.finish(song_id))
        else:
            song.finish()

    def _separated(self, pieces: Iterable[Separated | SeparationFailed]) -> None:
        for piece in pieces:
            song = self._songs[piece.song]
            try:
                if isinstance(piece, SeparationFailed):
                    raise piece.error
                song.add_separated(piece)
                if piece.last:
                    song.finish()
            except Exception as error:
                self._fail(song, error)

    def _fail(self, song: SongAnalysis, error: Exception) -> None:
        self._drop(song)
        song.fail(error)

    def _drop(self, song: SongAnalysis) -> None:
        """Separate nothing more of the song."""
        if self._separation is not None:
            self._separation.drop(song.plan.song_id)


def _report(item: _Read) -> None:
    """Report the audio that the models got."""
    if isinstance(item, _Mixture):
        report(item.song_id, Stage.ANALYZING, item.block.shape[1] / SAMPLE_RATE)
    elif isinstance(item, _StoredStems):
        report(item.song_id, Stage.ANALYZING, next(iter(item.stems.values())).shape[1] / SAMPLE_RATE)


def _read_songs(plans: Iterable[SongPlan], store: ObjectStore, limits: Limits) -> Iterator[_Read]:
    """All input of the models, song after song; runs ahead of them in its own thread."""
    for plan in plans:
        yield _Started(plan)
        try:
            yield from _read_song(plan, store, limits)
        except Exception as error:
            yield SongFailed(plan.song_id, error)
        else:
            yield _Ended(plan.song_id)


def _read_song(plan: SongPlan, store: ObjectStore, limits: Limits) -> Iterator[_Read]:
    if plan.needs_upload:
        with fetch_upload(store, plan.upload_key, limits.max_bytes) as fetched:
            if fetched.sha256 != plan.song_hash:
                raise CannotAnalyze(
                    f"the upload has changed since songs was computed (SHA-256 {fetched.sha256}, expected"
                    f" {plan.song_hash}); it counts as a new song: materialize songs for that one"
                )
            with caged(fetched.file, limits) as song:
                for block in song.blocks():
                    yield _Mixture(plan.song_id, block)
    if plan.reads_stored_stems:
        for rows in read_blocks(store, STEMS, plan.song_id):
            yield _StoredStems(plan.song_id, {row["stem"]: stored_samples(row) for row in rows})
