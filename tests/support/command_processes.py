"""The ``bandscope`` command in its own process, as a user starts it."""

import os
import signal
import subprocess
from pathlib import Path

from command_server import SCRIPT, Command, start_command
from daemon import open_instance
from platforms import Platform, local_settings


def bandscope(store: Path, home: Path, *arguments: str) -> Command:
    """Start the command line on a store and a Dagster home."""
    return start_command(arguments, variables(store, home))


def bandscope_alone(store: Path, home: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The same with imports of its own, for variables that a program reads when it starts."""
    return subprocess.Popen(
        [SCRIPT, *arguments],
        env=variables(store, home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell starts background jobs, which this test may be one of, with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def variables(store: Path, home: Path) -> dict[str, str]:
    """The environment of a command."""
    return os.environ | {
        "BANDSCOPE_STORAGE": str(store),
        "BANDSCOPE_DEVICE": "cpu",
        "DAGSTER_HOME": str(home),
        "COLUMNS": "200",
    }


def finish(process: "Command | subprocess.Popen[str]") -> str:
    """Wait for a command that must succeed; return its output."""
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed
    return printed


def platform(store: Path, home: Path) -> Platform:
    """The platform over a store and a Dagster home that commands used."""
    return Platform(local_settings(store), open_instance(home))
