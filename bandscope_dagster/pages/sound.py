"""The sound of a page: every source of the song, from its stored blocks, in Opus chunks of a few seconds."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from bandscope_dagster.audio.blocks import MIXTURE
from bandscope_dagster.pages.opus import OPUS_RATE, PACKET_FRAMES, OpusEncoder
from bandscope_dagster.pages.waveform import Waveform, WaveformMeter
from bandscope_dagster.songs.stored_audio import stored_samples
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import read_blocks
from bandscope_dagster.storage.tables.schemas import DECODED_WAVEFORMS, STEMS

BIT_RATE: Final = 280_000  # bit/s, all sources together
"""The page of a song of four minutes must stay below 12 MB. Base64 leaves 9 MB of this, or 300 kbit/s in total."""

MOST_BIT_RATE: Final = 96_000  # bit/s of one source: most people hear no difference to the original

CHUNK_S: Final = 5  # a browser decodes six sources of this length in 0.2 s, into 2 MB each
CHUNK_PACKETS: Final = CHUNK_S * OPUS_RATE // PACKET_FRAMES

THREADS: Final = 4  # one per source; decoders and encoders release Python's lock

Chunk = list[bytes]
"""The packets of a few seconds, for each source. Before each packet is its length: two bytes, little-endian."""


class SongSound:
    """Encodes the sources of one song, block by block. Memory contains one block and the packets that are ready.

    ``sources`` are "mixture" and the names of stored stems. All samples are multiplied by ``scale``.
    """

    def __init__(
        self, store: ObjectStore, song_id: str, sources: Sequence[str], frames: int, scale: float
    ) -> None:
        self._store = store
        self._song_id = song_id
        rate = min(BIT_RATE // len(sources), MOST_BIT_RATE)
        self._sources = {name: _Source(rate, frames, scale) for name in sources}

    @property
    def delay(self) -> int:
        """Frames at 48 kHz that decoders return before the song begins."""
        return next(iter(self._sources.values())).encoder.delay

    @property
    def waveforms(self) -> dict[str, Waveform]:
        """The waveform of each source, after all chunks were taken."""
        return {name: source.waveform.finish() for name, source in self._sources.items()}

    def chunks(self) -> Iterator[Chunk]:
        """The song in chunks of ``CHUNK_S``. The last one may be shorter, or longer by one packet.

        Raises:
            ValueError: a block is damaged or lacks one of the sources, or the sources differ in length.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            for block in _blocks(self._store, self._song_id, self._sources.keys()):
                list(pool.map(_Source.push, self._sources.values(), map(block.__getitem__, self._sources)))
                while min(len(source.ready) for source in self._sources.values()) >= CHUNK_PACKETS:
                    yield self._take()
            list(pool.map(_Source.finish, self._sources.values()))
        if len({len(source.ready) for source in self._sources.values()}) > 1:
            raise ValueError(
                f"{self._song_id}: the mixture and its stems differ in length; analyze the song again"
            )
        while any(source.ready for source in self._sources.values()):
            yield self._take()

    def _take(self) -> Chunk:
        return [source.take() for source in self._sources.values()]


class _Source:
    """The encoder and the waveform of one source."""

    def __init__(self, bit_rate: int, frames: int, scale: float) -> None:
        self.encoder = OpusEncoder(bit_rate)
        self.waveform = WaveformMeter(frames)
        self.ready: list[bytes] = []
        self._scale = np.float32(scale)

    def push(self, row: dict[str, Any]) -> None:
        samples = stored_samples(row)
        self.waveform.push(samples)
        self.ready += self.encoder.push(samples * self._scale)

    def finish(self) -> None:
        self.ready += self.encoder.finish()

    def take(self) -> bytes:
        taken, self.ready = self.ready[:CHUNK_PACKETS], self.ready[CHUNK_PACKETS:]
        return b"".join(len(packet).to_bytes(2, "little") + packet for packet in taken)


def _blocks(
    store: ObjectStore, song_id: str, sources: Collection[str]
) -> Iterator[dict[str, dict[str, Any]]]:
    """The song's blocks in order, each as source → row."""
    mixture = read_blocks(store, DECODED_WAVEFORMS, song_id) if MIXTURE in sources else None
    stems = read_blocks(store, STEMS, song_id) if set(sources) - {MIXTURE} else None
    if mixture is None or stems is None:
        for rows in mixture or stems or ():
            yield _by_source(rows, sources, song_id)
        return
    for rows, of_stems in zip(mixture, stems, strict=True):
        yield _by_source([*rows, *of_stems], sources, song_id)


def _by_source(rows: list[dict[str, Any]], sources: Collection[str], song_id: str) -> dict[str, Any]:
    found = {row.get("stem", MIXTURE): row for row in rows}
    if missing := set(sources) - found.keys():
        block = rows[0]["block"]
        raise ValueError(
            f"{song_id}: block {block} has no {', '.join(sorted(missing))}; analyze the song again"
        )
    return found
