"""Stored songs for the tests of the pages, and the decoded sound of a page."""

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from song_rows import lineage, song_row, tag_row

from bandscope_dagster.audio.flac import dequantize, encode, quantize
from bandscope_dagster.audio.levels import LevelMeter, SongMeter, rms_dbfs
from bandscope_dagster.pages.page_folder import PageFolder
from bandscope_dagster.pages.song_page import write_page
from bandscope_dagster.separation.quality import QualityMeter
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE
from bandscope_dagster.storage.tables.schemas import (
    DECODED_WAVEFORMS,
    INSTRUMENT_TAGS,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
)
from bandscope_dagster.storage.tables.song_tables import write_table
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from

SAMPLE_RATE = 44_100  # Hz
OPUS_RATE = 48_000  # Hz
BLOCK = 441_000  # frames
PRESENT_FROM = present_from(0.2, AUDIBLE_DB)

Audio = NDArray[np.float32]  # (2, frames)


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> Audio:
    """White noise, which no codec can compress below its bit rate."""
    frames = round(seconds * SAMPLE_RATE)
    return (level * np.random.default_rng(seed).standard_normal((2, frames))).astype(np.float32)


def tone(seconds: float, frequency: float, level: float = 0.3) -> Audio:
    """A sine of a frequency in Hz."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * frequency * time) * np.ones((2, 1))).astype(np.float32)


def clicks(seconds: float, at: list[float]) -> Audio:
    """Short bursts at these times (s)."""
    audio = np.zeros((2, round(seconds * SAMPLE_RATE)), np.float32)
    burst = 0.7 * np.sin(2 * np.pi * 3000 * np.arange(400) / SAMPLE_RATE) * np.hanning(400)
    for time in at:
        start = round(time * SAMPLE_RATE)
        audio[:, start : start + 400] = burst
    return audio


def store_song(
    store: ObjectStore,
    song_id: str,
    stems: Mapping[str, Audio],
    tags: list[dict[str, Any]] | None = None,
    beside: Audio | float = 0.0,
    **facts: Any,
) -> Audio:
    """Write all tables of a song as the pipeline does; return its mixture: the stems plus ``beside``."""
    mixture = (np.sum(list(stems.values()), axis=0) + beside).astype(np.float32)
    store_sound(store, song_id, mixture, stems)
    measure = SongMeter()
    measure.push(mixture)
    stats = measure.finish()
    row = song_row(song_id, song_hash="ab" * 32, codec="flac", channels=2, container="flac", size_bytes=1)
    row |= {"duration_s": stats.frames / SAMPLE_RATE, "frames": stats.frames, "peak": stats.peak}
    row |= {"loudness_lufs": stats.loudness_lufs, "rms_dbfs": stats.rms_dbfs, "upload_key": "uploads/a.wav"}
    write_table(store, SONGS, [row | facts], lineage(song_id))
    rows = [tag_row(song_id, "guitar", 0.6, 0.0, family="plucked strings")] if tags is None else tags
    write_table(store, INSTRUMENT_TAGS, [r for r in rows if r["source"] == "mixture"], lineage(song_id))
    write_table(store, STEM_INSTRUMENT_TAGS, [r for r in rows if r["source"] != "mixture"], lineage(song_id))
    return mixture


def store_sound(store: ObjectStore, song_id: str, mixture: Audio, stems: Mapping[str, Audio]) -> None:
    """Write the waveform and the stems in blocks of 10 s."""
    measure = QualityMeter(list(stems))
    with (
        AudioTableWriter(store, DECODED_WAVEFORMS, lineage(song_id)) as waveform,
        AudioTableWriter(store, STEMS, lineage(song_id)) as separated,
    ):
        for block, start in enumerate(range(0, mixture.shape[1], BLOCK)):
            part = {name: _rounded(audio[:, start : start + BLOCK]) for name, audio in stems.items()}
            whole = _rounded(mixture[:, start : start + BLOCK])
            measure.add_separated(whole, list(part.values()))
            for name, audio in part.items():
                measure.add_stem(name, audio)
            own = {"song_id": song_id, "block": block, "start_frame": start}
            waveform.add([own | _sound(whole)])
            separated.add(
                [own | {"stem": name, "model": "m"} | _sound(audio) for name, audio in part.items()]
            )
        waveform.commit()
        separated.commit({QUALITY_NOTE: measure.finish().to_json()})


def _rounded(audio: Audio) -> Audio:
    """The samples that are stored, which are also the ones that are measured."""
    return dequantize(quantize(audio))


def _sound(audio: Audio) -> dict[str, Any]:
    quantized = quantize(audio)
    levels = LevelMeter()
    levels.push(audio)
    return {
        "frames": audio.shape[1],
        "sample_rate": SAMPLE_RATE,
        "channels": 2,
        "peak": levels.finish().peak,
        "rms_dbfs": rms_dbfs(audio),
        "audio": {"bytes": encode(quantized), "path": "block.flac"},
        "gain": quantized.gain,
        "error": None,
    }


def page_of(store: ObjectStore, song_id: str) -> str:
    """Write a song's page, and return its text."""
    page = write_page(store, PageFolder(store), song_id, PRESENT_FROM)
    return store.read(page.key).decode()


@dataclass(frozen=True, slots=True)
class PageSound:
    """The sound of a page: its description, and the packets of every chunk."""

    description: dict[str, Any]
    chunks: list[list[list[bytes]]]  # chunk → source → packets

    def decoded(self, source: str) -> Audio:
        """A whole source at 48 kHz, without the encoder's delay, cut to the song's length."""
        number = self.description["sources"].index(source)
        audio = decode([packet for chunk in self.chunks for packet in chunk[number]])
        return audio[:, self.description["delay"] :][:, : round(self.description["seconds"] * OPUS_RATE)]


def decode(packets: list[bytes]) -> Audio:
    """All frames in the packets, from the first."""
    codec = av.CodecContext.create("libopus", "r")
    codec.sample_rate, codec.layout = OPUS_RATE, "stereo"
    frames = [frame for packet in packets for frame in codec.decode(av.Packet(packet))]
    frames += codec.decode(None)
    parts = [frame.to_ndarray() for frame in frames]
    whole = np.concatenate([part.reshape(-1, 2).T if part.shape[0] == 1 else part for part in parts], axis=1)
    return whole.astype(np.float32) / (2**15 if whole.dtype == np.int16 else 1)


def sound_of(html: str) -> PageSound:
    """The sound in a page's text."""
    description = json.loads(element(html, "sound"))
    texts = re.findall(r'<script type="text/plain" id="chunk-\d+">\n(.*?)\n</script>', html, re.DOTALL)
    return PageSound(
        description, [[_packets(b64decode(line)) for line in text.split("\n")] for text in texts]
    )


def element(html: str, name: str) -> str:
    """The text of the data element of this id."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.DOTALL)
    assert found, f"the page has no {name}"
    return found[1]


def _packets(data: bytes) -> list[bytes]:
    packets, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "little")
        packets.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return packets
