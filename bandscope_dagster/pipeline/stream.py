"""The stream inside ``analyze``: songs are read ahead of the models, pass block by block, are stored behind."""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.allocator import FreedMemory
from bandscope_dagster.audio.cage.client import caged
from bandscope_dagster.audio.flac import Bits, decode_flac
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.pipeline.background import WriteBehind, prefetch
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed
from bandscope_dagster.pipeline.plan import SongPlan
from bandscope_dagster.pipeline.song_analysis import SongAnalysis, Workplace
from bandscope_dagster.pipeline.uploads import fetch_upload
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.streaming import Separated, SeparationFailed, StreamingSeparation
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import read_blocks
from bandscope_dagster.storage.tables.schemas import STEMS
from bandscope_dagster.tagging.protocol import Tagger
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from bandscope_dagster.tagging.window_queue import WindowQueue

BLOCKS_AHEAD: Final = (
    4  # decoded blocks of 10 s (3.5 MB each) that wait for the model, also of the next songs
)
BLOCKS_BEHIND: Final = 4  # blocks that wait to be encoded and stored, before the model has to
ENCODERS: Final = os.cpu_count() or 1  # threads; libsndfile works without the interpreter's lock

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
    separator: Separator | None,
    tagger: Tagger | None,
    present_from: float = 0.5,
    stopped: threading.Event | None = None,
) -> Iterator[SongAnalyzed | SongFailed]:
    """Compute what every plan asks for; outcomes come as songs are done, each exactly once.

    Pictures show instruments from the score ``present_from``. Once ``stopped`` is set, the stream ends after the block
    in hand, without an outcome for the songs that it is in.

    Threads work at once: one reads and decodes up to ``BLOCKS_AHEAD`` blocks ahead, this one runs the models,
    ``ENCODERS`` encode, one stores. Memory is bounded by those queues and the models' batches, not by a song.
    Whatever goes wrong with one song is that song's ``SongFailed``.

    Where the models compute on the CPU, this thread waits while a block is encoded, on all cores. Side by side each
    encoder would hold up one of torch's threads, and that one all others, which wait awake: HTDemucs on two cores
    then takes 5 % longer than model and encoding one after the other.
    """
    devices = {model.device for model in (separator, tagger) if model is not None}
    writer = WriteBehind[None](BLOCKS_BEHIND)
    encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="encode")
    workplace = Workplace(
        store=store,
        writer=writer,
        encoders=encoders,
        models_wait=devices == {"cpu"},
        flac_bits=flac_bits,
        stems=separator.stems if separator else (),
        windows=WindowQueue(tagger) if tagger else None,
        vocabulary=load_vocabulary(),
        present_from=present_from,
    )
    batch = _Batch(workplace, separator)
    freed = FreedMemory()
    try:
        with writer:
            for item in prefetch(_read_songs(plans, store, limits), BLOCKS_AHEAD):
                if stopped is not None and stopped.is_set():
                    return
                freed.give_back()
                batch.take(item)
                yield from batch.done(wait=False)
            batch.flush()
            yield from batch.done(wait=True)
    finally:
        encoders.shutdown(cancel_futures=True)
        batch.abandon()


class _Batch:
    """The songs that are between their first block and their outcome."""

    def __init__(self, workplace: Workplace, separator: Separator | None) -> None:
        self._place = workplace
        self._streams = StreamingSeparation(separator) if separator else None
        self._songs: dict[str, SongAnalysis] = {}

    def take(self, item: _Read) -> None:
        """Pass one item that was read to its song; an error that this raises becomes the song's."""
        if isinstance(item, _Started):
            plan = item.plan
            self._songs[plan.song_id] = SongAnalysis(plan, self._place)
            if self._streams is not None and "stems" in plan.compute:
                self._streams.open(plan.song_id, plan.normalisation)
            return
        song = self._songs.get(item.song_id)
        if song is None or song.ended:
            return  # it failed earlier, and may be reported already; the rest of its audio is passed over
        try:
            if song.error is not None:  # in the writer: the models need not work for this song any more
                raise song.error
            self._pass_on(song, item)
        except Exception as error:
            self._fail(song, error)

    def flush(self) -> None:
        """Run what still waits for a full batch."""
        if self._streams is not None:
            self._separated(self._streams.flush())
        if self._place.windows is not None:
            self._place.windows.flush()

    def done(self, *, wait: bool) -> Iterator[SongAnalyzed | SongFailed]:
        """The outcomes of songs whose files are committed or given up; waits for all of them if asked to."""
        for song in list(self._songs.values()):
            song.settle()
            if song.finished is None or not (wait or song.finished.done()):
                continue
            song.finished.result()
            del self._songs[song.plan.song_id]
            yield _outcome(song)

    def abandon(self) -> None:
        """Throw away what is half-written of songs without an outcome: only an interrupt leaves any."""
        for song in self._songs.values():
            song.abandon()

    def _pass_on(self, song: SongAnalysis, item: _Mixture | _StoredStems | _Ended | SongFailed) -> None:
        song_id = song.plan.song_id
        separating = self._streams if "stems" in song.plan.compute else None
        if isinstance(item, _Mixture):
            song.add_mixture(item.block)
            if separating is not None:
                self._separated(separating.push(song_id, item.block))
        elif isinstance(item, _StoredStems):
            song.add_stored_stems(item.stems)
        elif isinstance(item, SongFailed):
            self._fail(song, item.error)
        elif separating is not None:
            self._separated(separating.finish(song_id))
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
        if self._streams is not None:
            self._streams.drop(song.plan.song_id)
        if song.finished is None:
            song.fail(error)


def _outcome(song: SongAnalysis) -> SongAnalyzed | SongFailed:
    if song.error is not None:
        return SongFailed(song.plan.song_id, song.error)
    return SongAnalyzed(
        plan=song.plan,
        written=song.written,
        seconds=song.seconds,
        quality=song.quality,
        used=song.used if song.quality is not None else None,
        tags=song.tags,
        read_back=song.read_back,
        picture=song.picture,
    )


def _read_songs(plans: Iterable[SongPlan], store: ObjectStore, limits: Limits) -> Iterator[_Read]:
    """Everything that the models need, song after song; runs ahead of them in a thread of its own."""
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
                    f"the upload is not the one that songs describes (SHA-256 {fetched.sha256}, expected"
                    f" {plan.song_hash}); it is a new song now: ingest it as one"
                )
            with caged(fetched.file, limits) as song:
                for block in song.blocks():
                    yield _Mixture(plan.song_id, block)
    if plan.reads_stored_stems:
        for rows in read_blocks(store, STEMS, plan.song_id):
            yield _StoredStems(
                plan.song_id, {row["stem"]: decode_flac(row["audio"]["bytes"], row["gain"]) for row in rows}
            )
