"""The process that decodes one upload, which it inherits as an open file, and has no other privileges.

It can open nothing, and it has limits on memory and CPU time. It sends blocks of audio through memory that it shares
with its reader, and everything else through a socket. The reader must trust it no more than the upload.
"""

import codecs
import contextlib
import fcntl
import io
import json
import mmap
import os
import resource
import socket
import struct
import sys
import wave
from dataclasses import asdict
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import BLOCK_FRAMES
from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.findings import Findings
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.audio.probe import probe
from bandscope_dagster.errors import SongRejected

CHANNELS: Final = 2
SLOTS: Final = 2  # blocks in shared memory: the reader reads one while the next is decoded
MEMORY_BYTES: Final = SLOTS * CHANNELS * BLOCK_FRAMES * 4

HEADER: Final = struct.Struct("<cI")  # of a message: its kind, and the number of bytes that follow
PROBE, END, REJECTED, OUT_OF_MEMORY, FAILED = b"P", b"E", b"R", b"M", b"F"
BLOCK: Final = b"B"  # no bytes follow: the number is that of the frames in the next slot
TAKEN: Final = b"\0"  # the only message of the reader: it has copied a block

UNPRIVILEGED: Final = 65534  # UID and GID of a user without privileges
UPLOAD_FD, CHANNEL_FD, MEMORY_FD = 3, 4, 5  # after the standard streams, which are /dev/null


def run(upload: int, channel: int, memory: int, limits: Limits, *, with_probe: bool) -> None:
    """Decode the file behind the descriptor ``upload``; ``memory`` is a descriptor of ``MEMORY_BYTES`` to map."""
    nothing = os.open(os.devnull, os.O_RDWR)
    # Duplicate to high numbers first: a descriptor may have the number that another one needs.
    inherited = (nothing, nothing, nothing, upload, channel, memory)
    sources = [fcntl.fcntl(number, fcntl.F_DUPFD, 10) for number in inherited]
    for target, source in enumerate(sources):
        os.dup2(source, target)
    os.closerange(len(sources), os.sysconf("SC_OPEN_MAX"))
    with mmap.mmap(MEMORY_FD, MEMORY_BYTES) as shared:
        os.close(MEMORY_FD)  # with it, this process could truncate the file while the reader has it mapped
        reader = _Reader(socket.socket(fileno=CHANNEL_FD), shared)
        confine(limits)
        with open(UPLOAD_FD, "rb") as file, contextlib.suppress(BrokenPipeError):  # the reader has stopped
            _decode(file, reader, limits, with_probe=with_probe)
            reader.wait()
        reader.close()


def _decode(file: BinaryIO, reader: "_Reader", limits: Limits, *, with_probe: bool) -> None:
    findings = Findings()
    try:
        if with_probe:
            reader.tell(PROBE, json.dumps(asdict(probe(file, limits))).encode())
        for block in decode(file, limits, findings):
            reader.give(block)
        reader.tell(END, json.dumps(asdict(findings.summary())).encode())
    except SongRejected as rejected:
        summary = asdict(findings.summary())
        reader.tell(REJECTED, json.dumps([rejected.reason.value, rejected.message, summary]).encode())
    except MemoryError:
        reader.tell(OUT_OF_MEMORY)
    except BrokenPipeError:
        raise
    except Exception as error:
        reader.tell(FAILED, f"{type(error).__name__}: {error}".encode(errors="backslashreplace"))


class _Reader:
    """The connection to the process that reads the song."""

    def __init__(self, channel: socket.socket, shared: mmap.mmap) -> None:
        self._channel = channel
        self._slots = np.frombuffer(shared, np.float32).reshape(SLOTS, -1)
        self._given = self._taken = 0  # blocks

    def tell(self, kind: bytes, text: bytes = b"") -> None:
        """Send a message."""
        self._channel.sendall(HEADER.pack(kind, len(text)) + text)

    def give(self, block: NDArray[np.float32]) -> None:
        """Send a block, ``(2, frames)``, as soon as a slot is free."""
        while self._given - self._taken == SLOTS:
            self._wait_for_one()
        frames = block.shape[1]
        slot = self._slots[self._given % SLOTS]
        slot[: CHANNELS * frames].reshape(CHANNELS, frames)[:] = block
        self._given += 1
        self._channel.sendall(HEADER.pack(BLOCK, frames))

    def wait(self) -> None:
        """Wait until the reader has copied every block."""
        while self._taken < self._given:
            self._wait_for_one()

    def close(self) -> None:
        """Release the shared memory and the socket."""
        del self._slots
        self._channel.close()

    def _wait_for_one(self) -> None:
        taken = self._channel.recv(SLOTS)
        if not taken:
            raise BrokenPipeError
        self._taken += len(taken)


def confine(limits: Limits) -> None:
    """Limit this process for the rest of its life: memory, CPU time, file size, and no new descriptors.

    Files, sockets and pipes need a new descriptor, and 0 are allowed; those that are open stay usable.
    """
    bounds = {
        resource.RLIMIT_CPU: (limits.max_decode_cpu_s, limits.max_decode_cpu_s + 1),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (0, 0),
    }
    if sys.platform == "linux":  # on other systems, limits on memory are unreliable
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        most = now + limits.max_decode_memory_bytes
        bounds = {resource.RLIMIT_AS: (most, most)} | bounds
    for bound, values in bounds.items():
        resource.setrlimit(bound, values)


def warm_up() -> None:
    """Decode 11 s of silence: a child cannot open files, so all modules and tables must be loaded before the fork.

    A little more than a block makes the allocator keep memory of that size.
    """
    for codec in ("cp1252", "utf-16"):
        codecs.lookup(codec)
    for rate in (44_100, 48_000):
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setparams((2, 2, rate, 0, "NONE", "not compressed"))
            writer.writeframes(bytes(4 * 11 * rate))
        limits = Limits(max_bytes=file.getbuffer().nbytes)
        probe(file, limits)
        for _ in decode(file, limits):
            pass


def drop_root() -> None:
    """Become an unprivileged user if this is root, which could raise its own limits."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a container's root may lack the right to change its user
            os.setgroups([])
            os.setgid(UNPRIVILEGED)
            os.setuid(UNPRIVILEGED)
