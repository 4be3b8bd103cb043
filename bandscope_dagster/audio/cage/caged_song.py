"""Decode each upload in a process of its own, so that a hostile file can crash, hang or bloat only that process.

One server (:mod:`~bandscope_dagster.audio.cage.fork_server`) has the decoders loaded and forks a child for each
upload. A fork takes a few milliseconds, and no child sees two uploads. The child has no credentials in its
environment, cannot open a file or a socket, and has limits on memory and CPU time. This module limits how much audio
it may return and how long it may be silent, and validates everything that it sends.
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
from dataclasses import replace
from typing import BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from bandscope_dagster.audio.blocks import BLOCK_FRAMES, SAMPLE_RATE
from bandscope_dagster.audio.cage import child
from bandscope_dagster.audio.cage.fork_server import STATUS
from bandscope_dagster.audio.cage.fork_server_client import CageFailed, start_decoding
from bandscope_dagster.audio.findings import Heard
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.audio.probe import Probe, printable_line
from bandscope_dagster.errors import Reason, SongRejected

MESSAGE_BYTES: Final = 1 << 16  # at most, of a probe or an error; the texts in them are limited too
GRACE_S: Final = 10.0  # at most, from the end of a child to the report of its exit status

_PROBE: Final = TypeAdapter(Probe)
_REJECTION: Final = TypeAdapter(tuple[Reason, str, Heard])
_HEARD: Final = TypeAdapter(Heard)


class CagedSong:
    """An upload that another process decodes: call :meth:`probe` first, if requested, then :meth:`blocks`.

    Every method raises :class:`SongRejected` if the upload can never be a song, which includes a file that crashes
    the decoder, and :class:`CageFailed` for every other error.
    """

    def __init__(
        self, channel: socket.socket, memory: mmap.mmap, status: int, stop: Callable[[], None], limits: Limits
    ) -> None:
        self._channel, self._status, self._stop = channel, status, stop
        self._slots = np.frombuffer(memory, np.float32).reshape(child.SLOTS, -1)
        self._limits = limits
        self._advice = "save the file without its tags and pictures"  # until the headers are read
        self.heard: Heard | None = (
            None  # after the last block or a rejection; None if the decoder was stopped
        )

    def probe(self) -> Probe:
        """The metadata in the file's headers; call it once."""
        kind, size = self._next()
        if kind != child.PROBE:
            raise self._misbehaved(f"a message of kind {kind!r} instead of the headers")
        try:
            return _PROBE.validate_json(self._read_message(size))
        except ValidationError as error:
            raise self._misbehaved(f"invalid headers ({error.error_count()} errors)") from error

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The blocks of :func:`~bandscope_dagster.audio.decode.decode`: ``(2, frames)`` float32 at 44.1 kHz."""
        self._advice = "convert the file to FLAC"
        given = total = 0
        while True:
            kind, frames = self._next()
            if kind == child.END:
                self.heard = self._validated(frames)
                return
            if kind != child.BLOCK or not 0 < frames <= BLOCK_FRAMES:
                raise self._misbehaved(f"{frames} frames of kind {kind!r} instead of a block of audio")
            slot = self._slots[given % child.SLOTS]
            # Copy before checking: the child can write to the shared memory at any time.
            block = slot[: child.CHANNELS * frames].reshape(child.CHANNELS, frames).copy()
            with suppress(OSError):  # if the child has exited, reading the next message reports it
                self._channel.sendall(child.TAKEN)
            given += 1
            total += frames
            if total > self._limits.max_duration_s * SAMPLE_RATE + BLOCK_FRAMES:
                raise self._misbehaved("more audio than is allowed")
            if not np.isfinite(block).all():
                raise self._misbehaved("samples that are infinite or not a number")
            yield block

    def _next(self) -> tuple[bytes, int]:
        """The kind and size of the next message; raises the error if the message is one."""
        header = bytearray(child.HEADER.size)
        self._read(memoryview(header))
        kind, size = child.HEADER.unpack(header)
        if kind == child.REJECTED:
            try:
                reason, message, heard = _REJECTION.validate_json(self._read_message(size))
            except ValidationError as error:
                raise self._misbehaved("an invalid rejection") from error
            self.heard = _printable(heard)
            raise SongRejected(reason, printable_line(message) or "no message")
        if kind == child.OUT_OF_MEMORY:
            raise self._out_of_memory()
        if kind == child.FAILED:
            text = self._read_message(size).decode(errors="replace")
            raise CageFailed(printable_line(text) or "no message")
        return kind, size

    def _validated(self, size: int) -> Heard:
        try:
            return _printable(_HEARD.validate_json(self._read_message(size)))
        except ValidationError as error:
            raise self._misbehaved("invalid findings") from error

    def _read_message(self, size: int) -> bytes:
        if size > MESSAGE_BYTES:
            raise self._misbehaved(f"a message of {size} bytes")
        message = bytearray(size)
        self._read(memoryview(message))
        return bytes(message)

    def _read(self, into: memoryview) -> None:
        """Fill ``into`` with the next bytes from the child."""
        rest = into
        while rest:
            silence_s = self._limits.max_decode_silence_s
            if not _readable(self._channel.fileno(), silence_s):
                self._stop()
                raise SongRejected(
                    Reason.TOO_COSTLY,
                    f"the decoder returned nothing for {silence_s:g} s; {self._advice}",
                )
            try:
                count = self._channel.recv_into(rest)
            except ConnectionResetError:
                count = 0
            if count == 0:
                raise self._exit_error()
            rest = rest[count:]

    def _exit_error(self) -> Exception:
        """The error for a child that exited before the end of the song."""
        status = _read_status(self._status)
        if status is None:
            return CageFailed("the fork server of the decoding processes has exited")
        if not os.WIFSIGNALED(status):
            return CageFailed(f"the decoding process exited with status {os.waitstatus_to_exitcode(status)}")
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return SongRejected(
                Reason.TOO_COSTLY,
                f"decoding takes more than {self._limits.max_decode_cpu_s:g} s of CPU time; {self._advice}",
            )
        if number in (signal.SIGKILL, signal.SIGTERM):  # the kernel sends SIGKILL when memory runs out
            return CageFailed(f"the decoding process was killed from outside ({signal.Signals(number).name})")
        return SongRejected(
            Reason.DECODER_CRASHED,
            f"the file crashes the decoder ({signal.Signals(number).name}); convert it to FLAC",
        )

    def _out_of_memory(self) -> SongRejected:
        mib = self._limits.max_decode_memory_bytes // 2**20
        return SongRejected(
            Reason.TOO_COSTLY, f"decoding takes more than {mib} MiB of memory; {self._advice}"
        )

    def _misbehaved(self, how: str) -> SongRejected:
        """The error for a child that broke the protocol: the file has corrupted it or taken it over."""
        self._stop()
        return SongRejected(
            Reason.DECODER_CRASHED, f"the file makes the decoder return {how}; convert it to FLAC"
        )


@contextmanager
def caged(file: BinaryIO, limits: Limits, *, with_probe: bool = False) -> Generator[CagedSong]:
    """Decode an open file (with a descriptor) in a process of its own, which ends with the ``with`` block.

    With ``with_probe`` the headers are read first: call ``probe`` before ``blocks``.

    Raises:
        CageFailed: the process could not be started.
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


def _printable(heard: Heard) -> Heard:
    return replace(heard, warning=None if heard.warning is None else printable_line(heard.warning))


def _readable(descriptor: int, timeout_s: float) -> bool:
    """Wait until the descriptor has data or is at its end; False after the timeout."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))


def _read_status(status: int) -> int | None:
    """The child's wait status, as ``os.waitpid`` returns it; None if the fork server has exited too."""
    if not _readable(status, GRACE_S):
        return None
    found = os.read(status, STATUS.size)
    return STATUS.unpack(found)[0] if len(found) == STATUS.size else None


def _file_in_memory() -> BinaryIO:
    """A file that two processes can map; on Linux it is in memory alone."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("blocks"), "r+b")
    return cast(BinaryIO, tempfile.TemporaryFile())
