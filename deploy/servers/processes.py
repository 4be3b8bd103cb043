"""A server as a process: started in a group of its own, watched, and ended with everything that it has started."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

LOOK_EVERY_S: Final = 0.1
KILL_TIMEOUT_S: Final = 30.0
TAIL_LINES: Final = 30  # of a server's log, in the message that says what became of it
LOOPBACK: Final = "127.0.0.1"


class ServerFailure(Exception):
    """A server did not start, has ended, or does not answer; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server, and where it prints."""

    name: str
    log: Path
    process: "subprocess.Popen[bytes]" = field(repr=False)

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        folder: Path | None = None,
    ) -> "ServerProcess":
        """Start ``command``; what it prints is appended to ``log``.

        ``environment`` is all that it gets (this process's where there is none), ``user`` whom it runs as, ``folder``
        where it runs.
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                user=user,
                cwd=folder,
                start_new_session=True,  # Ctrl-C is for us alone, and the group can be ended as a whole
            )
        return cls(name, log, process)

    def check(self) -> None:
        """See that it runs.

        Raises:
            ServerFailure: it has ended.
        """
        code = self.process.poll()
        if code is not None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise ServerFailure(f"{self.name} {how}{self.tail()}")

    def has_ended(self) -> bool:
        """Whether it has."""
        return self.process.poll() is not None

    def tail(self) -> str:
        """The end of its log, as the end of a message."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return f"; the end of {self.log}:\n" + "\n".join(f"  {line}" for line in lines)

    def end(self, with_signal: signal.Signals = signal.SIGTERM, grace_s: float = 20.0) -> bool:
        """End it and its group, and wait until they have; False where that took a SIGKILL after ``grace_s`` seconds.

        Raises:
            ServerFailure: not even that ended it.
        """
        self._signal(with_signal)
        # Its children are asked as well, so that a run is recorded as canceled and not found dead by somebody.
        gentle = self._wait(grace_s)
        self.kill()
        return gentle

    def kill(self) -> None:
        """End it and its group at once.

        Raises:
            ServerFailure: the kernel does not let go of it, as where it waits for a disk that does not answer.
        """
        self._signal(signal.SIGKILL)
        try:
            self.process.wait(KILL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            state = psutil.Process(self.process.pid).status()
            raise ServerFailure(
                f"{self.name} (process {self.process.pid}, {state}) is there {KILL_TIMEOUT_S:g} s after SIGKILL"
            ) from None

    def _signal(self, which: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, which)

    def _wait(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self.process.poll() is not None and not self._has_group():
                return True
            time.sleep(LOOK_EVERY_S)
        return False

    def _has_group(self) -> bool:
        """Whether a process of its group is there."""
        try:
            os.killpg(self.process.pid, 0)
        except (
            ProcessLookupError,
            PermissionError,
        ):  # macOS answers with the latter where only zombies are left
            return False
        return True


def wait_until(
    what: str,
    ready: Callable[[], object],
    server: ServerProcess,
    *,
    timeout_s: float,
    others: Iterable[ServerProcess] = (),
) -> None:
    """Ask ``ready`` until it holds.

    Raises:
        ServerFailure: ``server`` or one of the ``others`` has ended, or it does not hold within ``timeout_s`` seconds.
    """
    watched = [server, *others]
    until = time.monotonic() + timeout_s
    while True:
        for each in watched:
            each.check()
        if ready():
            return
        if time.monotonic() > until:
            raise ServerFailure(f"{what}: not within {timeout_s:g} s{server.tail()}")
        time.sleep(LOOK_EVERY_S)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def is_listening(port: int) -> bool:
    """Whether a server takes connections on a port of this machine."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((LOOPBACK, port)) == 0
