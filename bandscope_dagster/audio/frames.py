"""All frames of an upload's audio stream, in order, with silence in place of those that are lost.

A demuxer's or decoder's error is not the end of a file. After an error the next packet is read, and in a chained Ogg
file the next link. What is lost is counted in the findings.
"""

import ctypes
from collections.abc import Iterator
from typing import Any, BinaryIO

import av.logging
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from bandscope_dagster.audio.container import decoder_name, open_audio
from bandscope_dagster.audio.findings import Findings
from bandscope_dagster.audio.flac_headers import first_sample, split_frames
from bandscope_dagster.audio.flac_md5 import FlacMd5
from bandscope_dagster.audio.foreign_tags import after_tags, is_tag, is_tag_at
from bandscope_dagster.audio.mpeg import adts_frame_bytes, find_frame, mpeg_frame_bytes
from bandscope_dagster.audio.parts import Part, parts_of, record_choice
from bandscope_dagster.audio.samples import Silence
from bandscope_dagster.audio.stated import stated_length
from bandscope_dagster.errors import SongRejected

_MAX_STALLS = 16  # errors of a demuxer without progress in the file
_PACKET_STEP = 0.1  # share of a packet by which a gap of lost packets may differ from whole packets
_GAP_S = 0.1  # a longer gap in the timestamps of MP4, Matroska and ASF becomes silence, whatever its length
_JITTER_S = 0.002  # Matroska and ASF round timestamps to milliseconds
_TIMED = ("mov", "matroska", "asf")  # containers with a time for each packet
_INDEX_SHARE = 0.02  # of the bytes; indexes and tags at the end of Matroska and ASF are smaller
_OPUS_RATE = 48_000  # Hz, of positions in Opus streams
_HEAD = 32  # bytes of a packet that hold the header of a frame
# Containers without times: bytes measure a loss.
_FRAME_BYTES = {"mp3": mpeg_frame_bytes, "aac": adts_frame_bytes}


def read_frames(file: BinaryIO, findings: Findings) -> Iterator[AudioFrame | Silence]:
    """The frames of a file as the decoder returns them. Raises :class:`SongRejected` if it is not audio."""
    av.logging.set_level(av.logging.PANIC)  # errors are counted, nothing is printed
    try:
        parts = parts_of(file, findings)
        for number, part in enumerate(parts, 1):
            try:
                with open_audio(part.file) as (container, stream):
                    if number == 1:
                        record_choice(container, stream, findings)
                    yield from _Reader(part, container, stream, findings, alone=len(parts) == 1).frames()
            except SongRejected as rejected:
                if number == 1:
                    raise
                findings.note(f"part {number} of {len(parts)} cannot be decoded: {rejected.message}")
    finally:
        av.logging.set_level(None)


class _Reader:
    """Reads the packets of one stream, decodes them, and keeps the time."""

    def __init__(
        self, part: Part, container: InputContainer, stream: AudioStream, findings: Findings, *, alone: bool
    ) -> None:
        self._file, self._container, self._stream = part.file, container, stream
        self._findings = findings
        self._end = part.end
        self._name = container.format.name
        self._timed = self._name.startswith(_TIMED)
        self._flac = decoder_name(stream) == "flac"
        self._pcm = "pcm" in decoder_name(stream)
        self._stated_s = stated_length(part.file, container, stream)
        if alone:
            findings.stated_s = self._stated_s
        self._md5 = FlacMd5(stream) if self._flac and alone else None
        self._clock_s: float | None = None  # the time after the last frame, or silence
        self._shift_s = 0.0  # of the timestamps, for packets of bytes that FFmpeg counts as one frame
        self._evidence = part.lost_pages  # of damage since the last frame
        self._last_position = part.last_position
        self._damaged = part.lost_pages  # the demuxer reported an error
        self._good_bytes = self._good = 0  # packets that were decoded
        self._packet_s = 0.0  # the longest frame
        self._decoded_s = 0.0
        self._block = 0  # FLAC: frames' size
        self._tail_s = 0.0  # stated length of bad packets since the last frame
        self._position = 0  # byte after the last packet
        self._cut = False  # the last packet is not whole

    def frames(self) -> Iterator[AudioFrame | Silence]:
        for packet in self._packets():
            yield from self._decode(packet)
        for frame in self._decoded(None)[0] or ():
            yield from self._place(frame, self._time_of(frame, b""))
        self._finish()

    def _packets(self) -> Iterator["Packet[Any]"]:
        """All packets; after an error the demuxer is asked for the next one."""
        stalls, last = 0, -1
        packets = self._container.demux(self._stream)
        while True:
            errors = _errors()
            try:
                packet = next(packets)
            except MemoryError:  # FFmpeg's own is a subclass, and no sign of damage
                raise
            except StopIteration:
                break
            except FFmpegError:
                if self._position >= self._end or is_tag_at(self._file, self._position):
                    break  # only tags follow
                self._evidence = self._damaged = True
                position = self._file.tell()
                if position >= self._end:
                    self._cut = True
                    break
                stalls = stalls + 1 if position == last else 0
                if stalls >= _MAX_STALLS:
                    self._findings.stopped_early = True
                    break
                last = position
                packets = self._container.demux(self._stream)
                continue
            if _errors() != errors:  # also before the packet without bytes that ends the file
                self._evidence = self._damaged = True
                self._findings.errors += _errors() - errors
            if packet.size:
                yield packet

    def _decode(self, packet: "Packet[Any]") -> Iterator[AudioFrame | Silence]:
        head = bytes(memoryview(packet)[:_HEAD])
        self._count_bytes(packet, head)
        if packet.is_corrupt and not self._pcm:  # FFmpeg could not read all of it; PCM is whole in any length
            self._cut = self._evidence = True
        if is_tag(head):
            rest = after_tags(bytes(packet))
            if not rest:
                return
            packet, head = Packet(rest), rest[:_HEAD]
        frames, complaints = self._decoded(packet)
        if self._flac and (complaints or frames is None):
            # FFmpeg's parser joins a damaged frame and what follows. Every frame has a header with a checksum.
            pieces = list(split_frames(bytes(packet)))
            if len(pieces) > 1:
                for piece in pieces:
                    frames, complaints = self._decoded(Packet(piece))
                    yield from self._given(frames, complaints, piece[:_HEAD], packet)
                return
        yield from self._given(frames, complaints, head, packet)

    def _given(
        self, frames: list[AudioFrame] | None, complaints: int, head: bytes, packet: "Packet[Any]"
    ) -> Iterator[AudioFrame | Silence]:
        """The frames of a packet, each in its place in time."""
        if frames is None or (complaints and not frames):
            self._bad(packet, head)
            return
        self._findings.errors += complaints
        for frame in frames:
            yield from self._place(frame, self._time_of(frame, head))
        if frames:
            self._good += 1
            self._good_bytes += packet.size
            self._evidence = self._damaged and self._name == "ogg"  # whose next known time may be far away
            self._tail_s = 0.0
        if complaints:
            self._evidence = True

    def _decoded(self, packet: "Packet[Any] | None") -> tuple[list[AudioFrame] | None, int]:
        """The packet's frames, None if the decoder refuses it; and the errors that it reported beside."""
        errors = _errors()
        try:
            frames = self._stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except FFmpegError:
            return None, 0
        return frames, _errors() - errors

    def _count_bytes(self, packet: "Packet[Any]", head: bytes) -> None:
        """In a file without times, bytes between packets are lost frames."""
        self._cut = False
        position = packet.pos
        if self._name == "aac":
            position = find_frame(self._file, head, self._position, self._end)
            if position is not None and position > self._position:
                self._lost_bytes(position - self._position)
        size = _FRAME_BYTES[self._name](head) if self._name in _FRAME_BYTES else None
        if size is not None and packet.size < size:
            self._cut = True
        if position is not None:
            self._position = position + packet.size

    def _lost_bytes(self, count: int) -> None:
        if not self._good:
            return
        self._evidence = True
        lost = round(count * self._good / self._good_bytes) * self._packet_s
        self._shift_s += lost
        self._tail_s += lost

    def _bad(self, packet: "Packet[Any]", head: bytes) -> None:
        if not self._good and self._name in _FRAME_BYTES:
            return  # bytes before the first frame
        self._findings.bad_packets += 1
        self._evidence = True
        self._cut = True
        if self._clock_s is None and packet.pts is not None:
            self._clock_s = float(packet.pts * packet.time_base)
        if self._name in _FRAME_BYTES and self._good:
            frames = max(1, round(packet.size * self._good / self._good_bytes))
            self._shift_s += (frames - 1) * self._packet_s
            self._tail_s += frames * self._packet_s
        else:
            self._tail_s += float((packet.duration or 0) * (packet.time_base or 0))

    def _time_of(self, frame: AudioFrame, head: bytes) -> float | None:
        if self._flac:
            self._block = self._block or frame.samples
            number = first_sample(head, self._block)
            return None if number is None else number / frame.sample_rate
        return None if frame.time is None else frame.time + self._shift_s

    def _place(self, frame: AudioFrame, time_s: float | None) -> Iterator[AudioFrame | Silence]:
        """The frame, after the silence that belongs before it."""
        if "(" in frame.layout.name:
            _never_free(frame.layout)
        length_s = frame.samples / frame.sample_rate
        self._packet_s = max(self._packet_s, length_s)
        if time_s is not None and self._clock_s is None and self._flac and self._evidence:
            self._clock_s = 0.0
        if time_s is not None:
            gap_s = 0.0 if self._clock_s is None else time_s - self._clock_s
            if self._is_loss(gap_s):
                samples = round(gap_s * frame.sample_rate)
                self._findings.silence_s += samples / frame.sample_rate
                if self._evidence:
                    self._findings.damage_s += samples / frame.sample_rate
                yield Silence(samples, frame.sample_rate)
                self._clock_s = time_s
            elif self._clock_s is None or abs(gap_s) > max(0.5 * self._packet_s, _JITTER_S):
                self._clock_s = time_s
        if self._clock_s is not None:
            self._clock_s += length_s
        self._decoded_s += length_s
        if self._md5 is not None:
            self._md5.push(frame)
        yield frame

    def _is_loss(self, gap_s: float) -> bool:
        if gap_s <= max(0.5 * self._packet_s, _JITTER_S):
            return False
        if self._evidence:
            return True
        if not self._timed:
            return False
        packets = gap_s / self._packet_s
        whole = abs(packets - round(packets)) * self._packet_s <= max(
            _JITTER_S, _PACKET_STEP * self._packet_s
        )
        return whole or gap_s >= _GAP_S

    def _finish(self) -> None:
        if self._name == "aac" and self._good and 0 < self._position < self._end:
            self._lost_bytes(self._end - self._position)
        if self._stated_s is None:
            self._findings.damage_s += max(self._tail_s, self._unread_s() if self._damaged else 0.0)
        self._findings.cut_inside |= self._cut or self._tail_s > 0
        if self._md5 is not None and self._md5.differs and not self._findings.bad_packets:
            self._findings.note("the samples differ from the MD5 digest in the file")

    def _unread_s(self) -> float:
        """The audio after the last frame that was read: of Ogg by the last page, else by the bytes that are left."""
        rate = self._stream.sample_rate
        if self._last_position is not None and rate:
            extradata = self._stream.codec_context.extradata or b""
            opus = decoder_name(self._stream) == "opus"
            skipped = int.from_bytes(extradata[10:12], "little") if opus else 0
            end_s = (self._last_position - skipped) / (_OPUS_RATE if opus else rate)
            return max(0.0, end_s - (self._clock_s or 0.0))
        if not self._timed or self._position <= 0:
            return 0.0
        unread = (self._end - self._position) / self._position
        return unread * self._decoded_s if unread > _INDEX_SHARE else 0.0


def _never_free(layout: AudioLayout) -> None:
    """Keep a layout for ever, also when Python ends.

    PyAV 18 frees the map of a layout whose order is not FFmpeg's own twice: with the frame, and with ``frame.layout``.
    The decoding process ends with its song.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))


def _errors() -> int:
    """The number of errors that FFmpeg has reported in this process."""
    return av.logging.get_last_error()[0]
