"""Decode uploads in processes of their own, which a hostile file may crash, hang or bloat without harm to this one.

One server (:mod:`~bandscope_dagster.audio.cage.server`) has the decoders loaded and forks a child for each upload: a
few milliseconds, and nothing is left of one upload when the next is read. The child has no credentials in its
environment, cannot open a file or a socket, and is bounded in memory and CPU time; here it is bounded in what it
produces and in how long it may be silent. What it says is checked before it is believed.
"""

import mmap
import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from bandscope_dagster.audio.blocks import BLOCK_FRAMES, SAMPLE_RATE
from bandscope_dagster.audio.cage import child as child
from bandscope_dagster.audio.cage.server import STATUS
from bandscope_dagster.audio.cage.server_process import CageFailed, start_decoding
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.audio.probe import Probe, printable_line
from bandscope_dagster.errors import Reason, SongRejected

MESSAGE_BYTES: Final = 1 << 16  # a probe or a reason; their texts have bounds of their own
GRACE_S: Final = 10.0  # for a child that has ended to be reported

_PROBE: Final = TypeAdapter(Probe)
_REJECTION: Final = TypeAdapter(tuple[Reason, str])


class CagedSong:
    """An upload that is being decoded elsewhere: first :meth:`probe`, where it was asked for, then :meth:`blocks`.

    Every method raises :class:`SongRejected` for what can never be a song, also where the decoder did not survive it,
    and :class:`CageFailed` where something else went wrong.
    """

    def __init__(
        self, channel: socket.socket, memory: mmap.mmap, status: int, stop: Callable[[], None], limits: Limits
    ) -> None:
        self._channel, self._status, self._stop = channel, status, stop
        self._slots = np.frombuffer(memory, np.float32).reshape(child.SLOTS, -1)
        self._limits = limits

    def probe(self) -> Probe:
        """What the headers state; to be called once."""
        kind, size = self._next()
        if kind != child.PROBE:
            raise self._nonsense(f"a message of kind {kind!r} for the headers")
        try:
            return _PROBE.validate_json(self._read_message(size))
        except ValidationError as error:
            raise self._nonsense(f"headers that cannot be read ({error.error_count()} faults)") from error

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """What :func:`~bandscope_dagster.audio.decode.decode` yields: ``(2, frames)`` float32 at 44.1 kHz."""
        given = total = 0
        while True:
            kind, frames = self._next()
            if kind == child.END:
                return
            if kind != child.BLOCK or not 0 < frames <= BLOCK_FRAMES:
                raise self._nonsense(f"{frames} frames of kind {kind!r} for a block of audio")
            slot = self._slots[given % child.SLOTS]
            # A copy, and only then a look: the other side can write there at any time.
            block = slot[: child.CHANNELS * frames].reshape(child.CHANNELS, frames).copy()
            with suppress(OSError):  # if it has died, the next message does not come
                self._channel.sendall(child.TAKEN)
            given += 1
            total += frames
            if total > self._limits.max_duration_s * SAMPLE_RATE + BLOCK_FRAMES:
                raise self._nonsense("more audio than is allowed")
            if not np.isfinite(block).all():
                raise self._nonsense("samples that are no numbers")
            yield block

    def _next(self) -> tuple[bytes, int]:
        """The kind and size of the next result; what ends the song is raised."""
        header = bytearray(child.HEADER.size)
        self._read(memoryview(header))
        kind, size = child.HEADER.unpack(header)
        if kind == child.REJECTED:
            try:
                reason, message = _REJECTION.validate_json(self._read_message(size))
            except ValidationError as error:
                raise self._nonsense("a rejection that cannot be read") from error
            raise SongRejected(reason, printable_line(message) or "without a word")
        if kind == child.OUT_OF_MEMORY:
            raise self._out_of_memory()
        if kind == child.FAILED:
            text = self._read_message(size).decode(errors="replace")
            raise CageFailed(printable_line(text) or "without a word")
        return kind, size

    def _read_message(self, size: int) -> bytes:
        if size > MESSAGE_BYTES:
            raise self._nonsense(f"a message of {size} bytes")
        message = bytearray(size)
        self._read(memoryview(message))
        return bytes(message)

    def _read(self, into: memoryview) -> None:
        """Fill ``into`` with what the child writes."""
        rest = into
        while rest:
            if not _readable(self._channel.fileno(), self._limits.max_decode_silence_s):
                self._stop()
                raise SongRejected(
                    Reason.TOO_COSTLY,
                    f"the decoder gave nothing for {self._limits.max_decode_silence_s:g} s; convert the file to FLAC",
                )
            try:
                count = self._channel.recv_into(rest)
            except ConnectionResetError:
                count = 0
            if count == 0:
                raise self._ended()
            rest = rest[count:]

    def _ended(self) -> Exception:
        """Why a child that had more to say is no more."""
        status = _read_status(self._status)
        if status is None:
            return CageFailed("the server of the decoding processes is gone")
        if not os.WIFSIGNALED(status):
            return CageFailed(f"the decoding process ended with status {os.waitstatus_to_exitcode(status)}")
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return SongRejected(
                Reason.TOO_COSTLY,
                f"decoding takes more than {self._limits.max_decode_cpu_s:g} s of CPU; convert the file to FLAC",
            )
        if number in (signal.SIGKILL, signal.SIGTERM):  # as the system does when memory is short
            return CageFailed(f"the decoding process was ended from outside ({signal.Signals(number).name})")
        return SongRejected(
            Reason.DECODER_CRASHED,
            f"the file crashes the decoder ({signal.Signals(number).name}); convert it to FLAC",
        )

    def _out_of_memory(self) -> SongRejected:
        mib = self._limits.max_decode_memory_bytes // 2**20
        return SongRejected(
            Reason.TOO_COSTLY, f"decoding takes more than {mib} MiB of memory; convert the file to FLAC"
        )

    def _nonsense(self, what: str) -> SongRejected:
        """A decoder that has been taken over, or has lost its way."""
        self._stop()
        return SongRejected(
            Reason.DECODER_CRASHED, f"the file makes the decoder give {what}; convert it to FLAC"
        )


@contextmanager
def caged(file: BinaryIO, limits: Limits, *, with_probe: bool = False) -> Generator[CagedSong]:
    """Start to decode an open file (with a descriptor) in a process of its own, which ends with this block.

    With ``with_probe`` its headers are read first, and are to be asked for.

    Raises:
        CageFailed: no process could be started.
    """
    with ExitStack() as stack:
        memory = stack.enter_context(_file_in_memory())
        memory.truncate(child.MEMORY_BYTES)
        shared = mmap.mmap(memory.fileno(), child.MEMORY_BYTES)
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        status, status_in = os.pipe()
        stack.callback(os.close, status)
        try:
            descriptors = file.fileno(), theirs.fileno(), memory.fileno(), status_in
            stop = start_decoding(descriptors, limits, with_probe=with_probe)
        finally:
            theirs.close()
            os.close(status_in)
        stack.callback(stop)
        yield CagedSong(ours, shared, status, stop, limits)


def _readable(descriptor: int, timeout_s: float) -> bool:
    """Wait until there is something to read, or nothing more to come."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))


def _read_status(status: int) -> int | None:
    """How a child ended; None if its server went with it."""
    if not _readable(status, GRACE_S):
        return None
    found = os.read(status, STATUS.size)
    return STATUS.unpack(found)[0] if len(found) == STATUS.size else None


def _file_in_memory() -> BinaryIO:
    """A file that two processes can map; on Linux it is never written to a disk."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("blocks"), "r+b")
    return cast(BinaryIO, tempfile.TemporaryFile())
