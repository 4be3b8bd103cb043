"""The fork server: for each upload it forks one child process with limits, as ``fork_server_client`` requests.

    python -m bandscope_dagster.audio.cage.fork_server FD

``FD`` is the control socket. The server loads the decoders once. Only its children read uploads
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

from bandscope_dagster.audio.cage.child import drop_root, run, warm_up
from bandscope_dagster.audio.limits import Limits

REQUEST: Final = struct.Struct("<I")  # number of JSON bytes that follow; descriptors are attached
DESCRIPTORS: Final = 4  # upload, channel, memory for blocks, pipe for the wait status
STATUS: Final = struct.Struct("<i")  # of a child that exited, as os.waitpid returns it


def receive(control: socket.socket) -> tuple[Mapping[str, Any], list[int]] | None:
    """The next request and its descriptors; None if the client has closed the socket."""
    header, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, DESCRIPTORS)
    if len(header) < REQUEST.size:
        return None
    (size,) = REQUEST.unpack(header)
    return json.loads(control.recv(size, socket.MSG_WAITALL)), descriptors


def serve(control: socket.socket) -> None:
    """Start and stop children as requested and report their exits, until the client closes ``control``."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _wake)
    # Ctrl+C reaches all processes of a terminal; the client decides how to react.
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
                    os._exit(ended)  # a child must never return to this loop
            for descriptor in inherited:
                os.close(descriptor)
            children[asked["id"]] = _Child(process, status)
    for child in children.values():
        os.kill(child.process, signal.SIGKILL)


def _wake(*_: object) -> None:
    """Empty on purpose: without a Python handler, SIGCHLD does not wake the loop."""


@dataclass(frozen=True, slots=True)
class _Child:
    process: int  # PID
    status: int  # descriptor of the pipe that takes the wait status


def _reap(children: dict[int, _Child]) -> None:
    """Report the wait status of every child that has exited."""
    for number, child in list(children.items()):
        process, ended = os.waitpid(child.process, os.WNOHANG)
        if process == 0:
            continue
        del children[number]
        with contextlib.suppress(BrokenPipeError):  # the client has stopped waiting for it
            os.write(child.status, STATUS.pack(ended))
        os.close(child.status)


def main() -> None:
    """Serve the control socket whose descriptor is the first argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    warm_up()
    drop_root()
    # The garbage collector then leaves loaded objects unchanged, so the children can share that memory.
    gc.freeze()
    serve(control)


if __name__ == "__main__":
    main()
