"""Write an audio file block by block."""

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final, Self, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import BLOCK_FRAMES, SAMPLE_RATE, Reblock
from bandscope_dagster.exporting.encodings import BIT_RATES, STEM_FILE, Encoding

# File extension → muxer of FFmpeg and its options.
MUXERS: Final[Mapping[str, tuple[str, dict[str, str]]]] = {
    "wav": ("wav", {"rf64": "auto"}),  # EBU Tech 3306: WAV files above 4 GiB
    "flac": ("flac", {}),
    "mp3": ("mp3", {"id3v2_version": "3"}),  # Windows cannot read version 4
    # The muxer for M4A, which has the brand of NI's stem files; like them, it enables the first stream only.
    STEM_FILE: ("ipod", {}),
}


class Track:
    """Encodes the stereo blocks of one source, in order, as one stream of a container. Memory holds one block."""

    def __init__(self, container: OutputContainer, encoding: Encoding, name: str | None = None) -> None:
        self._container = container
        self._encoding = encoding
        stream = cast(AudioStream, container.add_stream(encoding.codec, rate=SAMPLE_RATE))
        stream.codec_context.layout = "stereo"  # pyright: ignore[reportAttributeAccessIssue]
        stream.codec_context.format = encoding.sample_format  # pyright: ignore[reportAttributeAccessIssue]
        if encoding.codec in BIT_RATES:
            stream.codec_context.bit_rate = BIT_RATES[encoding.codec]
        if name is not None:
            stream.metadata["handler_name"] = name  # the name of a stream in MP4
        stream.codec_context.open()
        self._stream = stream
        # frame_size is 0 for PCM, which accepts any length.
        self._frames = Reblock(stream.codec_context.frame_size or BLOCK_FRAMES)
        self._written = 0

    def push(self, block: NDArray[np.float32]) -> None:
        """Encode ``(2, n)`` float32 at 44.1 kHz; no sample may exceed the ceiling of the encoding."""
        for frame in self._frames.push(block):
            self._encode(frame)

    def finish(self) -> int:
        """Encode the rest; return the length in frames."""
        rest = self._frames.finish()
        if rest is not None:
            self._encode(rest)
        self._container.mux(self._stream.encode(None))
        return self._written

    def _encode(self, samples: NDArray[np.float32]) -> None:
        bits = self._encoding.bits
        data: Any = samples if bits is None else _integers(samples, bits)
        planar = self._encoding.sample_format.endswith("p")
        data = np.ascontiguousarray(data if planar else data.T.reshape(1, -1))
        frame = AudioFrame.from_ndarray(data, format=self._encoding.sample_format, layout="stereo")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self._written
        self._written += samples.shape[1]
        self._container.mux(self._stream.encode(frame))


class SoundFile:
    """Encodes the stereo blocks of one source or several, in order, as the streams of ``file``, with ``tags``.

    ``finish`` completes the file and does not close ``file``. As a context manager, it frees the encoders even without
    ``finish``. ``names`` are those of the streams, where the format has some.
    """

    def __init__(
        self,
        file: BinaryIO,
        encoding: Encoding,
        tags: Mapping[str, str],
        names: Sequence[str | None] = (None,),
    ) -> None:
        muxer, options = MUXERS[encoding.suffix]
        # A file object, never a path: FFmpeg interprets protocols and patterns in paths.
        self._container = av.open(file, "w", format=muxer, options=options)
        self._container.metadata.update(tags)
        self._tracks = [Track(self._container, encoding, name) for name in names]

    def push(self, *blocks: NDArray[np.float32]) -> None:
        """Encode one block of every source, see ``Track.push``."""
        for track, block in zip(self._tracks, blocks, strict=True):
            track.push(block)

    def finish(self) -> set[int]:
        """Write the rest and the headers; return the lengths of the streams in frames."""
        frames = {track.finish() for track in self._tracks}
        self._container.close()
        return frames

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()


def _integers(samples: NDArray[np.float32], bits: int) -> NDArray[np.int16] | NDArray[np.int32]:
    """The samples as integers, rounded without dither.

    Samples stored with this number of bits stay unchanged, and stems still add up.

    Only two kinds of samples clip: exactly +1 (the largest integer is one step lower), and samples up to half a step
    too high (the stored peak of a block was measured before rounding to the stored bits).
    """
    full = 2 ** (bits - 1)
    # float64: a sample of 24 bits times a gain does not fit into float32.
    steps = np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1)
    if bits == 16:
        return steps.astype(np.int16)
    return steps.astype(np.int32) << (32 - bits)  # FFmpeg reads the upper bits of an int32
