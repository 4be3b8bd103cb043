"""All frames of an upload's audio stream, in order, with silence in place of those that are lost.

A demuxer's or decoder's error is not the end of a file. After an error the next packet is read, and in a chained Ogg
file the next link. What is lost is counted in the findings.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from bandscope_dagster.audio.container import decoder_name, open_audio
from bandscope_dagster.audio.findings import Findings
from bandscope_dagster.audio.flac_headers import first_sample, split_frames
from bandscope_dagster.audio.flac_md5 import FlacMd5
from bandscope_dagster.audio.foreign_tags import after_tags, is_tag, is_tag_at
from bandscope_dagster.audio.frame_gaps import FRAME_BYTES, FrameGaps
from bandscope_dagster.audio.parts import Part, parts_of, record_choice
from bandscope_dagster.audio.pyav import captured_errors, error_count, never_free, silent
from bandscope_dagster.audio.samples import Silence
from bandscope_dagster.audio.start import Start
from bandscope_dagster.audio.stated import ogg_seconds, stated_length
from bandscope_dagster.errors import SongRejected

_MAX_STALLS = 16  # errors of a demuxer without progress in the file
_PACKET_STEP = 0.1  # share of a packet by which a gap of lost packets may differ from whole packets
_GAP_S = 0.1  # a longer gap in the timestamps of MP4, Matroska and ASF becomes silence, whatever its length
_JITTER_S = 0.002  # Matroska and ASF round timestamps to milliseconds
_TIMED = ("mov", "matroska", "asf")  # containers with a time for each packet
_HEAD = 32  # bytes of a packet that hold the header of a frame


def read_frames(file: BinaryIO, findings: Findings) -> Iterator[AudioFrame | Silence]:
    """The frames of a file as the decoder returns them. Raises :class:`SongRejected` if it is not audio."""
    with silent():
        parts = parts_of(file, findings)
        for number, part in enumerate(parts, 1):
            try:
                with ExitStack() as opened:
                    with captured_errors() as errors:
                        container, stream = opened.enter_context(open_audio(part.file))
                    if number == 1:
                        record_choice(container, stream, findings)
                    reported = errors.about(container.format.name, decoder_name(stream))
                    findings.errors += reported
                    yield from _Reader(part, container, stream, findings, reported, len(parts) == 1).frames()
            except SongRejected as rejected:
                if number == 1:
                    raise
                findings.note(f"part {number} of {len(parts)} cannot be decoded: {rejected.message}")


class _Reader:
    """Reads the packets of one stream, decodes them, and keeps the time."""

    def __init__(
        self,
        part: Part,
        container: InputContainer,
        stream: AudioStream,
        findings: Findings,
        errors: int,  # that FFmpeg reported when it opened the part
        alone: bool,
    ) -> None:
        self._part, self._container, self._stream = part, container, stream
        self._findings = findings
        self._name = container.format.name
        self._timed = self._name.startswith(_TIMED)
        self._flac = decoder_name(stream) == "flac"
        self._pcm = "pcm" in decoder_name(stream)
        self._stated_s = stated_length(part, container, stream)
        if alone:
            findings.stated_s = self._stated_s
        self._md5 = FlacMd5(stream) if self._flac and alone else None
        self._clock_s: float | None = None  # the time after the last frame, or silence
        self._shift_s = 0.0  # of the timestamps, for packets of bytes that FFmpeg counts as one frame
        self._skips = self._name in ("ogg", "asf")  # FFmpeg skips damaged pages and packets
        self._damaged = part.damaged or (errors > 0 and self._skips)  # or the demuxer reported an error
        unread = errors > 0 and self._name.startswith("matroska")  # it goes on with the next cluster
        self._evidence = self._damaged or unread  # of damage since the last frame
        self._start = Start(part, container, stream, findings, self._flac or unread)
        self._packet_s = 0.0  # the longest frame
        self._decoded_s = 0.0
        self._block = 0  # FLAC: frames' size
        self._tail_s = 0.0  # stated length of bad packets since the last frame
        self._position = 0  # byte after the last packet
        self._gaps = FrameGaps(part.file, self._name, part.end) if self._name in FRAME_BYTES else None
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
            errors = error_count()
            try:
                packet = next(packets)
            except MemoryError:  # FFmpeg's own is a subclass, and no sign of damage
                raise
            except StopIteration:
                break
            except FFmpegError:
                if self._position >= self._part.end or is_tag_at(self._part.file, self._position):
                    break  # only tags follow
                self._evidence = self._damaged = True
                position = self._part.file.tell()
                if position >= self._part.end:
                    self._cut = True
                    break
                stalls = stalls + 1 if position == last else 0
                if stalls >= _MAX_STALLS:
                    self._findings.stopped_early = True
                    break
                last = position
                packets = self._container.demux(self._stream)
                continue
            if error_count() != errors:  # also before the packet without bytes that ends the file
                self._evidence = self._damaged = True
                self._findings.errors += error_count() - errors
            if packet.size:
                yield packet

    def _decode(self, packet: "Packet[Any]") -> Iterator[AudioFrame | Silence]:
        head = bytes(memoryview(packet)[:_HEAD])
        self._count_bytes(packet, head)
        self._start.packet(packet)
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
            self._bad(packet)
            return
        self._findings.errors += complaints
        if frames and self._gaps is not None:
            self._lost_before(self._gaps.good(packet), packet, frames[0])
        for frame in frames:
            yield from self._place(frame, self._time_of(frame, head))
        if frames:
            self._evidence = self._damaged and self._skips  # the next known time may be far away
            self._tail_s = 0.0
        if complaints:
            self._evidence = True

    def _decoded(self, packet: "Packet[Any] | None") -> tuple[list[AudioFrame] | None, int]:
        """The packet's frames, None if the decoder refuses it; and the errors that it reported beside."""
        errors = error_count()
        try:
            frames = self._stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except FFmpegError:
            return None, 0
        return frames, error_count() - errors

    def _count_bytes(self, packet: "Packet[Any]", head: bytes) -> None:
        """Count the bytes of a packet, and in a file without times the frames that are lost before it."""
        self._cut = False
        if self._gaps is not None:
            self._lost_frames(self._gaps.arrive(packet, head))
            self._cut, self._position = self._gaps.cut, self._gaps.position
        elif packet.pos is not None:
            self._position = packet.pos + packet.size

    def _lost_frames(self, count: int) -> None:
        if count:
            self._evidence = True
            self._shift_s += count * self._packet_s
            self._tail_s += count * self._packet_s

    def _lost_before(self, count: int, packet: "Packet[Any]", frame: AudioFrame) -> None:
        """Frames that are lost before the first good one."""
        if count:
            self._findings.bad_packets += count
            self._evidence = True
            self._clock_s = 0.0
            length_s = float((packet.duration or 0) * (packet.time_base or 0))
            self._shift_s = count * length_s - (frame.time or 0.0)

    def _bad(self, packet: "Packet[Any]") -> None:
        frames = 1 if self._gaps is None else self._gaps.refused(packet)
        if not frames:
            return
        self._findings.bad_packets += 1
        self._evidence = True
        self._cut = True
        if self._clock_s is None and packet.pts is not None:
            self._clock_s = float(packet.pts * packet.time_base)
        if self._gaps is not None:
            self._shift_s += (frames - 1) * self._packet_s
            self._tail_s += frames * self._packet_s
        else:
            self._tail_s += float((packet.duration or 0) * (packet.time_base or 0))

    def _time_of(self, frame: AudioFrame, head: bytes) -> float | None:
        if self._flac:
            self._block = self._block or frame.samples
            number = first_sample(head, self._block)
            return None if number is None else number / frame.sample_rate
        if frame.time is None or (self._part.asf and self._stated_s and frame.time > self._stated_s + _GAP_S):
            return None  # a damaged time
        return frame.time + self._shift_s

    def _place(self, frame: AudioFrame, time_s: float | None) -> Iterator[AudioFrame | Silence]:
        """The frame, after the silence that belongs before it."""
        if "(" in frame.layout.name:
            never_free(frame.layout)
        length_s = frame.samples / frame.sample_rate
        self._packet_s = max(self._packet_s, length_s)
        if time_s is not None and self._clock_s is None:
            self._clock_s = self._start.expected_s(time_s, self._packet_s, self._evidence)
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
        off_s = abs(packets - round(packets)) * self._packet_s
        return off_s <= max(_JITTER_S, _PACKET_STEP * self._packet_s) or gap_s >= _GAP_S

    def _finish(self) -> None:
        if self._gaps is not None:
            self._lost_frames(self._gaps.rest())
            if self._gaps.begins_with:
                self._findings.note(f"{self._gaps.begins_with} bytes before the first frame are no audio")
        unread_s = self._unread_s() if self._damaged else 0.0
        if self._stated_s is None:
            self._findings.damage_s += max(self._tail_s, unread_s)
        elif self._part.asf:
            self._findings.stopped_early |= unread_s > 0
            self._findings.ends_damaged |= self._evidence
        self._findings.cut_inside |= self._cut or self._tail_s > 0
        if self._md5 is not None and self._md5.differs and not self._findings.bad_packets:
            self._findings.note("the samples differ from the MD5 digest in the file")

    def _unread_s(self) -> float:
        """The audio after the last frame that was read: of Ogg by the last page, else by the bytes."""
        if self._part.last_position is not None:
            return max(0.0, ogg_seconds(self._stream, self._part.last_position) - (self._clock_s or 0.0))
        readable = self._timed and self._position > 0
        return self._part.unread_share(self._position) * self._decoded_s if readable else 0.0
