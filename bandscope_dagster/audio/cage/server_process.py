"""The server that forks decoding processes (:mod:`~bandscope_dagster.audio.cage.server`), one for this process."""

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

from bandscope_dagster.audio.cage import server as worker
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.errors import BandscopeError

KEPT_VARIABLES: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG")


class CageFailed(BandscopeError):
    """The decoding process failed for a reason that is no property of the upload; another attempt may succeed."""


class _Server:
    """The process that forks, for as long as this one lives."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", worker.__name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                # Nothing else of this process's environment, where the credentials are. One thread: it forks.
                env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
                | {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
            )
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        atexit.register(self.end)

    def start(self, descriptors: Sequence[int], limits: Limits, with_probe: bool) -> Callable[[], None]:
        """Fork a child; returns what stops it, whether it has ended or not. Raises OSError where the server is gone."""
        number = next(self._numbers)
        self._send({"id": number, "limits": asdict(limits), "with_probe": with_probe}, descriptors)

        def stop() -> None:
            with suppress(OSError):  # with the server its children have gone
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
            socket.send_fds(self._control, [worker.REQUEST.pack(len(message))], list(descriptors))
            self._control.sendall(message)


_servers: Final[dict[int, _Server]] = {}  # by process: a fork of this one has its own
_servers_lock: Final = threading.Lock()


def start_decoding(
    descriptors: tuple[int, int, int, int], limits: Limits, *, with_probe: bool
) -> Callable[[], None]:
    """Decode an upload in a process of its own.

    The descriptors are those of the upload, of the socket and the memory for the answers (those of
    :mod:`~bandscope_dagster.audio.cage.child`), and of a pipe that is told how the process ended.

    Returns what stops that process, whether it has ended or not.

    Raises:
        CageFailed: none could be started.
    """
    me = os.getpid()
    with _servers_lock:
        try:
            if me in _servers:
                with suppress(BrokenPipeError, ConnectionResetError):
                    return _servers[me].start(descriptors, limits, with_probe)
                _servers.pop(me).end()  # it has died
            _servers[me] = _Server()
            return _servers[me].start(descriptors, limits, with_probe)
        except OSError as error:
            raise CageFailed(f"no decoding process could be started: {error}") from error
