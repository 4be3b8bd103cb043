"""Start the fork server (:mod:`~bandscope_dagster.audio.cage.fork_server`), one per process, and send it requests."""

import atexit
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from bandscope_dagster.audio.cage import fork_server
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.errors import BandscopeError

KEPT_VARIABLES: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG")


class CageFailed(BandscopeError):
    """The decoding process failed, and the upload is not the cause; a retry may succeed."""


class _ForkServer:
    """A running fork server; it ends with this process."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", fork_server.__name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                # No other variables: they may hold credentials. One thread, since the server forks.
                env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
                | {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
            )
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        atexit.register(self.end)

    def start(self, descriptors: Sequence[int], limits: Limits, with_probe: bool) -> Callable[[], None]:
        """Fork a child; return a function that stops it, if it still runs. Raises OSError if the server has exited."""
        number = next(self._numbers)
        self._send({"id": number, "limits": asdict(limits), "with_probe": with_probe}, descriptors)

        def stop() -> None:
            with suppress(OSError):  # the server has exited, and killed its children
                self._send({"id": number}, [])

        return stop

    def end(self) -> None:
        """End the server and its children."""
        atexit.unregister(self.end)
        self._control.close()
        self._process.wait()

    def _send(self, asked: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        message = json.dumps(asked).encode()
        with self._lock:
            socket.send_fds(self._control, [fork_server.REQUEST.pack(len(message))], list(descriptors))
            self._control.sendall(message)


_servers: Final[dict[int, _ForkServer]] = {}  # by PID: a fork of this process needs its own
_servers_lock: Final = threading.Lock()


def start_decoding(
    descriptors: tuple[int, int, int, int], limits: Limits, *, with_probe: bool
) -> Callable[[], None]:
    """Start to decode an upload in a process of its own.

    The descriptors are: the upload, the socket and the memory for the results (see
    :mod:`~bandscope_dagster.audio.cage.child`), and a pipe for the wait status of the process.

    Returns a function that stops the process, if it still runs.

    Raises:
        CageFailed: the process could not be started.
    """
    me = os.getpid()
    with _servers_lock:
        try:
            if me in _servers:
                with suppress(BrokenPipeError, ConnectionResetError):
                    return _servers[me].start(descriptors, limits, with_probe)
                _servers.pop(me).end()  # it has exited
            _servers[me] = _ForkServer()
            return _servers[me].start(descriptors, limits, with_probe)
        except OSError as error:
            raise CageFailed(f"the decoding process cannot be started: {error}") from error
