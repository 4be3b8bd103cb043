"""`bash deploy/local_stack.sh` as a user runs it: start, process a batch of songs, stop; and failures in between."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from deploy.servers.processes import is_listening

SCRIPT = Path(__file__).parents[2] / "deploy" / "local_stack.sh"
TIMEOUT_S = 600.0
EVERYTHING_HAS_ENDED = "Everything has ended"


@dataclass
class Stack:
    """A running script with its own folder."""

    folder: Path
    process: "subprocess.Popen[str]"
    printed: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, folder: Path, *options: str) -> "Stack":
        """Start ``bash deploy/local_stack.sh --folder <folder> <options>`` in the environment of these tests."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        process = subprocess.Popen(
            ["bash", SCRIPT, "--folder", folder, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        return cls(folder, process)

    def wait_for(self, text: str) -> None:
        """Read the output up to a line with ``text``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)
            if text in line:
                return
        raise AssertionError(f"the script ended without printing {text!r}:\n{self.text}")

    def end(self, with_signal: signal.Signals | None = None) -> int:
        """Send the signal, if any, and wait until the script has ended; return its exit code."""
        if with_signal is not None:
            self.process.send_signal(with_signal)
        self.printed.append(self.process.communicate(timeout=TIMEOUT_S)[0])
        return self.process.returncode

    @property
    def text(self) -> str:
        """The output until now."""
        return "".join(self.printed)

    @property
    def ports(self) -> dict[str, int]:
        """Server → TCP port."""
        return json.loads((self.folder / "addresses.json").read_text())["ports"]

    def processes(self) -> list[str]:
        """The command lines of all processes that have its folder in an argument or a variable."""
        found: list[str] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                known = [*process.cmdline(), *process.environ().values()]
                if any(str(self.folder) in each for each in known) and process.pid != os.getpid():
                    found.append(" ".join(process.cmdline()))
        return found

    def kill_server(self, command: str) -> None:
        """Send SIGKILL to the server with this command."""
        (server,) = [
            process
            for process in psutil.process_iter()
            if any(command in each for each in _arguments(process))
            and any(str(self.folder) in each for each in _arguments(process))
        ]
        server.kill()

    def has_left_nothing(self) -> bool:
        """True if none of its processes is left and none of its ports is in use."""
        return not self.processes() and not any(is_listening(port) for port in self.ports.values())


def _arguments(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


@pytest.fixture(scope="module")
def new_folder() -> Iterator[Callable[[], Path]]:
    """A function that makes folders. Under root, PostgreSQL runs as another user, which may not enter pytest's."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="local-stack-")))
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder)


@pytest.fixture(scope="module", autouse=True)
def kept(new_folder: Callable[[], Path]) -> Iterator[Stack]:
    """A stack with ``--keep``; the other tests begin while it starts."""
    stack = Stack.start(new_folder(), "--keep")
    yield stack
    if stack.process.poll() is None:
        stack.end(signal.SIGTERM)


@pytest.fixture
def start(new_folder: Callable[[], Path]) -> Iterator[Callable[[], Stack]]:
    """A function that starts another stack; it is stopped at the end of the test."""
    started: list[Stack] = []

    def begin() -> Stack:
        started.append(Stack.start(new_folder()))
        return started[-1]

    yield begin
    for stack in started:
        if stack.process.poll() is None:
            stack.end(signal.SIGTERM)


def test_who_interrupts_the_start_is_left_with_nothing(start: Callable[[], Stack]) -> None:
    stack = start()
    stack.wait_for("PostgreSQL takes connections")
    assert stack.end(signal.SIGINT) == 130
    assert "SIGINT: stopping everything" in stack.text
    assert EVERYTHING_HAS_ENDED in stack.text
    assert "Traceback" not in stack.text
    assert stack.has_left_nothing(), stack.processes()


def test_servers_do_not_outlive_a_script_that_was_killed(start: Callable[[], Stack]) -> None:
    stack = start()
    stack.wait_for("PostgreSQL takes connections")
    assert stack.processes()
    stack.process.kill()
    stack.process.wait()
    until = time.monotonic() + 120
    while not stack.has_left_nothing() and time.monotonic() < until:
        time.sleep(0.2)
    assert stack.has_left_nothing(), stack.processes()


def test_a_batch_goes_through_and_the_stack_is_used_from_another_shell_until_ctrl_c(kept: Stack) -> None:
    kept.wait_for("Ctrl-C stops all of it")
    lines = kept.text.splitlines()
    assert any(line.startswith("cut in the middle.flac") and "rejected: truncated" in line for line in lines)
    for song in ("first.wav", "second.flac"):
        assert any(line.startswith(song) and "ok: 4.0 s" in line for line in lines), song
    assert any(line.startswith("read-only webserver") and "UnauthorizedError" in line for line in lines)
    exports = "\n".join(line for line in lines if line.startswith("export "))
    other = subprocess.run(
        ["bash", "-c", f"{exports}\n{Path(sys.executable).with_name('bandscope')} status"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len([line for line in other.stdout.splitlines() if line.startswith(("first-", "second-"))]) == 2
    assert "rejected: truncated" in other.stdout
    assert kept.end(signal.SIGINT) == 0
    order = ["daemon", "webserver-read-only", "webserver", "code-server", "the S3 server", "PostgreSQL"]
    ended = [line.split(" has ended")[0][2:] for line in kept.text.splitlines() if " has ended (" in line]
    assert ended == order
    assert EVERYTHING_HAS_ENDED in kept.text
    assert kept.has_left_nothing(), kept.processes()


def test_a_stack_that_is_started_again_has_its_songs_and_names_a_server_that_dies(kept: Stack) -> None:
    ports = kept.ports
    again = Stack.start(kept.folder, "--keep")
    try:
        again.wait_for("The catalog has 3 songs from before")
        again.wait_for("Ctrl-C stops all of it")
        again.kill_server("dagster-daemon")
        assert again.end() == 1
    finally:
        if again.process.poll() is None:
            again.end(signal.SIGTERM)
    assert again.ports == ports
    assert "local stack: daemon was killed by SIGKILL; the end of" in again.text
    assert str(again.folder / "logs" / "daemon.log") in again.text
    assert EVERYTHING_HAS_ENDED in again.text, "the other servers are stopped"
    assert again.has_left_nothing(), again.processes()
