"""The MD5 digest of a FLAC stream's samples, compared with the one in its header (RFC 9639, 8.2)."""

import hashlib

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from bandscope_dagster.audio.flac_headers import stated_md5, stated_samples
from bandscope_dagster.audio.samples import sample_format, samples_of


class FlacMd5:
    """The digest of all samples, as FLAC computes it: interleaved, little-endian, in whole bytes."""

    def __init__(self, stream: AudioStream) -> None:
        extradata = stream.codec_context.extradata
        self._stated = stated_md5(extradata)
        self._samples = stated_samples(extradata)
        self._bits = (int.from_bytes(extradata[12:14], "big") >> 4 & 31) + 1 if extradata else 16
        self._digest = hashlib.md5(usedforsecurity=False)
        self._count = 0

    def push(self, frame: AudioFrame) -> None:
        """Add the next frame."""
        if self._stated is None:
            return
        samples = samples_of(frame).T
        self._count += frame.samples
        depth = 16 if sample_format(frame) == "s16" else 32
        size = -(-self._bits // 8)
        shifted = samples.reshape(-1) >> (depth - self._bits)
        if size != shifted.itemsize:
            shifted = shifted.astype("<i4").view("u1").reshape(-1, 4)[:, :size]
        self._digest.update(shifted.tobytes())

    @property
    def differs(self) -> bool:
        """True if all samples were decoded, and are not those of the encoder."""
        return (
            self._stated is not None
            and self._count == self._samples
            and self._digest.digest() != self._stated
        )
