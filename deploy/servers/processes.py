"""A server as a process: started in its own group, watched, and ended together with its children."""

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
TAIL_LINES: Final = 30  # of a server's log, in messages about its end
LOOPBACK: Final = "127.0.0.1"


class ServerFailure(Exception):
    """A server did not start, has ended, or does not answer; the message contains the end of its log."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server and its log file."""

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
        """Start ``command`` in ``folder`` as ``user``; its output is appended to ``log``.

        ``environment`` is its whole environment; by default that of this process.
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
                start_new_session=True,  # Ctrl-C does not reach it, and its whole group can be ended
            )
        return cls(name, log, process)

    def check(self) -> None:
        """Check that it runs.

        Raises:
            ServerFailure: it has ended.
        """
        code = self.process.poll()
        if code is not None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise ServerFailure(f"{self.name} {how}{self.tail()}")

    def has_ended(self) -> bool:
        """True if the process has ended."""
        return self.process.poll() is not None

    def tail(self) -> str:
        """The end of its log, to append to a message."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return f"; the end of {self.log}:\n" + "\n".join(f"  {line}" for line in lines)

    def end(self, with_signal: signal.Signals = signal.SIGTERM, grace_s: float = 20.0) -> bool:
        """End the server and its group, and wait for them; False if that needed a SIGKILL after ``grace_s`` seconds.

        Raises:
            ServerFailure: it is still there after SIGKILL.
        """
        self._signal(with_signal)
        # Its children get the signal too, so that a run is recorded as canceled instead of found dead later.
        gentle = self._wait(grace_s)
        self.kill()
        return gentle

    def kill(self) -> None:
        """Kill the server and its group.

        Raises:
            ServerFailure: the kernel cannot end it, for example while it waits for a disk that does not answer.
        """
        self._signal(signal.SIGKILL)
        try:
            self.process.wait(KILL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            state = psutil.Process(self.process.pid).status()
            raise ServerFailure(
                f"{self.name} (process {self.process.pid}, {state}) is still there {KILL_TIMEOUT_S:g} s after SIGKILL"
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
        """True if a process of its group exists."""
        try:
            os.killpg(self.process.pid, 0)
        except (ProcessLookupError, PermissionError):  # macOS raises PermissionError if only zombies are left
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
    """Wait until ``ready`` returns a true value.

    Raises:
        ServerFailure: ``server`` or one of the ``others`` has ended, or ``timeout_s`` seconds have passed.
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
    """Ports of this machine without a listener."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def is_listening(port: int) -> bool:
    """True if a server accepts connections on this port of this machine."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((LOOPBACK, port)) == 0
