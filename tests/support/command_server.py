"""Commands and servers in processes of their own, as a user starts them, without the seconds that imports take.

A command imports Dagster, PyTorch and SciPy, which takes longer than its work on a few short songs. So one process
imports them once, and each command is a fork of it, with its own environment, session and output. The modules that read
the environment when they are imported, as Bandscope's command line and its assets do, are imported by the command.
"""

import atexit
import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

BANDSCOPE = "bandscope_dagster.cli.app:main"
SCRIPT = str(Path(sys.executable).with_name("bandscope"))
PRELOADED = (
    *(
        "av",
        "dagster",
        "pandas",
        "pyarrow.parquet",
        "pyloudnorm",
        "rich.progress",
        "safetensors.torch",
        "scipy.signal",
    ),
    *("polars", "pydantic_settings", "torch", "typer", "upath", "yaml"),
    *("dagster._cli.api", "dagster._daemon.cli", "dagster._grpc.server"),
    "bandscope_dagster.orchestration.private_api",
    "bandscope_dagster.pipeline.analyze",
)
NOT_PRELOADED = ("assets", "bandscope_dagster.cli", "bandscope_dagster.definitions")
"""Modules that read the environment when they are imported."""


class Command:
    """A running command, with the part of ``subprocess.Popen`` that the tests use."""

    def __init__(self, pid: int, ended: socket.socket, output: int) -> None:
        """Take the process's id, the socket that will tell its end, and the file or pipe with its output."""
        self.pid = pid
        self.returncode: int | None = None
        self.stdout = os.fdopen(output)
        self._ended = ended

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the exit code. Raises ``TimeoutExpired``."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("bandscope", timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; returns its output. Raises ``TimeoutExpired``."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            parts: list[bytes] = []
            while selector.select(timeout):
                part = os.read(self.stdout.fileno(), 2**16)
                parts.append(part)
                if not part:
                    self.wait(timeout)
                    return b"".join(parts).decode(), None
        raise subprocess.TimeoutExpired("bandscope", timeout or 0.0, output=b"".join(parts))

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._ended.settimeout(timeout)
            with contextlib.suppress(TimeoutError, BlockingIOError):
                status = self._ended.recv(16)
                assert status, "the server of commands has ended"
                self.returncode = os.waitstatus_to_exitcode(int(status))
        return self.returncode


def start_command(arguments: Sequence[object], variables: Mapping[str, str]) -> Command:
    """Start ``bandscope <arguments>`` with these environment variables and no others.

    Its standard output and standard error are one pipe, and it leads its own session.
    """
    output, writing = os.pipe()
    with contextlib.closing(os.fdopen(writing)):
        return _start(
            "bandscope_dagster.cli.app:main",
            [SCRIPT, *map(str, arguments)],
            variables,
            Path.cwd(),
            output,
            writing,
        )


def start_server(
    program: str, arguments: Sequence[str], variables: Mapping[str, str], folder: Path, output: Path
) -> "Command | subprocess.Popen[bytes]":
    """Start ``program``, a function as "module:name", in ``folder``; it writes to the file ``output``."""
    with output.open("ab") as writing:
        if "DAGSTER_GRPC_TIMEOUT_SECONDS" in variables:  # Dagster reads it when it is imported
            command = [sys.executable, "-m", "command_server", program, *arguments]
            return subprocess.Popen(
                command,
                env=dict(variables),
                cwd=folder,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        reading = os.open(output, os.O_RDONLY)
        return _start(program, [program, *arguments], variables, folder, reading, writing.fileno())


def run_command(
    arguments: Sequence[object], variables: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run ``bandscope <arguments>`` to its end. Its ``stdout`` is all that it wrote."""
    command = start_command(arguments, variables)
    printed, _ = command.communicate(1200)
    return subprocess.CompletedProcess([SCRIPT], command.wait(), printed, "")


def write_script(folder: Path) -> None:
    """Write a script ``bandscope`` into a folder, for shells with that folder in PATH: it does the same."""
    script = folder / "bandscope"
    module = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import command_server"
    script.write_text(f"#!{sys.executable} -SE\n{module}\ncommand_server.be_client({_address()!r})\n")
    script.chmod(0o755)


def be_client(address: bytes) -> None:
    """Run ``bandscope`` with this process's arguments, variables, folder and output, and end as it does."""
    ended, theirs = socket.socketpair()
    with theirs:
        _request(
            address, BANDSCOPE, [SCRIPT, *sys.argv[1:]], os.environ, os.getcwd(), [1, 2, theirs.fileno()]
        )
    ended.recv(16)
    sys.exit(os.waitstatus_to_exitcode(int(ended.recv(16))))


def _start(
    program: str, argv: list[str], variables: Mapping[str, str], folder: Path, reading: int, writing: int
) -> Command:
    ended, theirs = socket.socketpair()
    with theirs:
        _request(_address(), program, argv, variables, str(folder), [writing, writing, theirs.fileno()])
    return Command(int(ended.recv(16)), ended, reading)


def _request(
    address: bytes, program: str, argv: list[str], variables: Mapping[str, str], folder: str, files: list[int]
) -> None:
    """Ask the server at an address for a process; its files are output, errors, and a socket for its id and its end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(address)
        socket.send_fds(server, [json.dumps([program, argv, dict(variables), folder]).encode()], files)


@cache
def _address() -> bytes:
    """Start the server of this process; returns the address that it listens to."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind("")  # Linux chooses an abstract address, which needs no file
    listening.listen(64)
    server = subprocess.Popen(
        [sys.executable, "-m", "command_server", str(listening.fileno())],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
            "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",  # else `bandscope run` restarts itself to set it
        },
        stdin=subprocess.PIPE,  # the server ends when this process does
        pass_fds=[listening.fileno()],
    )
    atexit.register(server.kill)
    address = listening.getsockname()
    listening.close()
    return address


def serve(listening: socket.socket) -> str:
    """Start a command for each request, and send its process id and later its exit status, until stdin is closed.

    Returns only in a command's process, with its program.
    """
    ended_children, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup.fileno())
    running: dict[int, socket.socket] = {}
    selector = selectors.DefaultSelector()
    for source in (listening, ended_children, sys.stdin):
        selector.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                os._exit(0)
            elif key.fileobj is ended_children:
                ended_children.recv(4096)
                _report_ended(running)
            else:
                connection, _ = listening.accept()
                with connection:
                    message, files, _, _ = socket.recv_fds(connection, 2**20, 3)
                *outputs, ended_file = files
                ended = socket.socket(fileno=ended_file)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    for each in (listening, ended_children, wakeup, ended, selector, *running.values()):
                        each.close()
                    program, *rest = json.loads(message)
                    _become(*rest, outputs)
                    return program
                for each in outputs:
                    os.close(each)
                ended.send(str(pid).encode())
                running[pid] = ended


def _report_ended(running: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            with running.pop(pid) as connection, contextlib.suppress(OSError):
                connection.send(str(status).encode())


def _become(argv: list[str], variables: dict[str, str], folder: str, outputs: list[int]) -> None:
    """Turn a fork into the command's process, up to its first line of code."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for standard, output in zip((1, 2), outputs, strict=True):
        os.dup2(output, standard)
        os.close(output)
    os.chdir(folder)
    tunables = os.environ["GLIBC_TUNABLES"]
    os.environ.clear()
    os.environ.update(variables | {"GLIBC_TUNABLES": tunables})
    sys.argv = argv


def main() -> None:
    """Import, serve, and in each fork run the command."""
    for module in PRELOADED:
        importlib.import_module(module)
    early = [name for name in sys.modules if name.startswith(NOT_PRELOADED)]
    assert not early, f"imported before the environment is known: {early}"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    first = sys.argv[1]
    module, _, name = (serve(socket.socket(fileno=int(first))) if first.isdigit() else first).partition(":")
    program: Any = getattr(importlib.import_module(module), name)
    program()


if __name__ == "__main__":
    main()
