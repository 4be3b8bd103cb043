"""Encode one source of a song as Opus packets: small enough for a page, and decoded by every browser.

Opus is the only codec that browsers decode from memory and that is still good at 40–90 kbit/s. MP3 is not, and free
builds of Chromium have no AAC. The page puts the packets into WebM, which Chrome, Firefox and Safari (from 15) decode.
Before WebKit's change 58484 (2026), Safari took Opus in Web Audio from no other container.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE, Reblock
from bandscope_dagster.audio.resample import StreamResampler

OPUS_RATE: Final = 48_000  # Hz, the output rate of every Opus decoder (RFC 6716)
PACKET_FRAMES: Final = 960  # 20 ms, as RFC 7587 recommends


class OpusEncoder:
    """Turns the stereo blocks of one source, in order, into packets of 20 ms."""

    def __init__(self, bit_rate: int) -> None:
        from av import CodecContext  # in functions: a code location needs no decoders
        from av.audio.codeccontext import AudioCodecContext

        codec = CodecContext.create("libopus", "w")
        assert isinstance(codec, AudioCodecContext)
        codec.sample_rate, codec.bit_rate = OPUS_RATE, bit_rate
        codec.layout, codec.format = "stereo", "flt"  # pyright: ignore[reportAttributeAccessIssue]
        # "constrained" keeps every second close to the bit rate, so that the size of a page can be predicted.
        codec.options = {"vbr": "constrained", "application": "audio", "frame_duration": "20"}
        codec.open()
        self._codec = codec
        self._resampler = StreamResampler(SAMPLE_RATE, OPUS_RATE, channels=2)
        self._frames = Reblock(PACKET_FRAMES)

    @property
    def delay(self) -> int:
        """Frames at 48 kHz that a decoder returns before the source begins: the pre-skip of RFC 7845."""
        header = self._codec.extradata
        assert header is not None
        return int.from_bytes(header[10:12], "little")

    def push(self, block: NDArray[np.float32]) -> list[bytes]:
        """Add a block, ``(2, n)`` float32 at 44.1 kHz; return the packets that are now full, perhaps none."""
        return self._encode(self._resampler.push(block))

    def finish(self) -> list[bytes]:
        """The last packets. All packets together contain the whole source and the delay."""
        packets = self._encode(self._resampler.finish())
        packets += self._encode(np.zeros((2, self.delay), np.float32))
        rest = self._frames.finish()
        if rest is not None:
            packets += self._encode_frame(np.pad(rest, ((0, 0), (0, PACKET_FRAMES - rest.shape[1]))))
        return packets + [bytes(packet) for packet in self._codec.encode(None)]

    def _encode(self, samples: NDArray[np.float32]) -> list[bytes]:
        return [packet for frame in self._frames.push(samples) for packet in self._encode_frame(frame)]

    def _encode_frame(self, samples: NDArray[np.float32]) -> list[bytes]:
        from av.audio.frame import AudioFrame

        frame = AudioFrame.from_ndarray(samples.T.reshape(1, -1), format="flt", layout="stereo")
        frame.sample_rate = OPUS_RATE
        return [bytes(packet) for packet in self._codec.encode(frame)]
