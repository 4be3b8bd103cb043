"""A server that forks one limited process for each upload; :mod:`~bandscope_dagster.audio.cage.client` asks it.

    python -m bandscope_dagster.audio.cage.server FD

``FD`` is the control socket. The server loads the decoders once and reads no upload itself; that is for its children
(:mod:`~bandscope_dagster.audio.cage.child`).
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bandscope_dagster.audio.cage.child import give_up_root, run, warm_up
from bandscope_dagster.audio.limits import Limits

REQUEST: Final = struct.Struct("<I")  # bytes of JSON that follow; the descriptors come with it
DESCRIPTORS: Final = 4  # upload, channel, memory for blocks, pipe for how the child ended
STATUS: Final = struct.Struct("<i")  # how a child ended, as os.waitpid gives it


def receive(control: socket.socket) -> tuple[Mapping[str, Any], list[int]] | None:
    """The next request and its descriptors; None when the other side has gone."""
    header, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, DESCRIPTORS)
    if len(header) < REQUEST.size:
        return None
    (size,) = REQUEST.unpack(header)
    return json.loads(control.recv(size, socket.MSG_WAITALL)), descriptors


def serve(control: socket.socket) -> None:
    """Start and stop children as asked, tell how each ended, until the other side of ``control`` has gone."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _wake)
    # An interrupt reaches the whole group of a terminal; it is the other side that decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, _Child] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(children)
        if control in ready:
            request = receive(control)
            if request is None:
                break
            asked, descriptors = request
            if not descriptors:
                if asked["id"] in children:
                    os.kill(children[asked["id"]].process, signal.SIGKILL)
                continue
            *inherited, status = descriptors
            process = os.fork()
            if process == 0:
                ended = 1
                try:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    upload, channel, memory = inherited
                    limits = Limits(**asked["limits"])
                    run(upload, channel, memory, limits, with_probe=asked["with_probe"])
                    ended = 0
                finally:
                    os._exit(ended)  # whatever happens, a child never comes back into this loop
            for descriptor in inherited:
                os.close(descriptor)
            children[asked["id"]] = _Child(process, status)
    for child in children.values():
        os.kill(child.process, signal.SIGKILL)


def _wake(*_: object) -> None:
    """A signal without a handler in Python would not wake the loop."""


@dataclass(frozen=True, slots=True)
class _Child:
    process: int
    status: int  # a pipe


def _reap(children: dict[int, _Child]) -> None:
    """Tell of each child that has ended how it did."""
    for number, child in list(children.items()):
        process, ended = os.waitpid(child.process, os.WNOHANG)
        if process == 0:
            continue
        del children[number]
        with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
            os.write(child.status, STATUS.pack(ended))
        os.close(child.status)


def main() -> None:
    """Serve the control socket that the first argument numbers."""
    control = socket.socket(fileno=int(sys.argv[1]))
    warm_up()
    give_up_root()
    gc.freeze()  # so that children share what is loaded
    serve(control)


if __name__ == "__main__":
    main()
