"""Starts a whole shared deployment without containers, processes a batch of songs, and stops it.

    bash deploy/local_stack.sh [--keep] [--folder DIR] [--first-port N]

Exits with 0 if all servers were healthy, the batch was processed, and no process is left.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bandscope_dagster.errors import BandscopeError
from deploy.servers.dagster_servers import Refused
from deploy.servers.postgres import closed_to_others
from deploy.servers.processes import ServerFailure
from deploy.smoke_batch import CATALOG, SmokeBatch, SmokeFailure, read_catalog
from deploy.topology import LocalStack

FOLDER: Final = Path(__file__).parent.parent / "local_stack"
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FORESEEN: Final = (ServerFailure, SmokeFailure, Refused, BandscopeError, OSError)


class Interrupted(BaseException):
    """A signal asks this program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number  # exit code, as in shells


class Screen:
    """Prints each step on a terminal, while it runs and when it is done."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, what: str) -> Generator[None]:
        """Show ``what`` with a clock while a block of code runs, and print a line when it is done."""
        began = time.monotonic()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        if self.console.is_terminal:
            with Progress(*columns, console=self.console, transient=True) as progress:
                progress.add_task(escape(what), total=None)
                yield
        else:
            yield
        self.console.print(f"[green]✓[/green] {escape(what)} ({time.monotonic() - began:.1f} s)")

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line."""
        self.console.print(escape(text), style=style)

    def show(self, findings: list[tuple[str, str]]) -> None:
        """Print a short table of parts and findings."""
        table = Table("part", "found", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for part, found in findings:
            table.add_row(part, escape(found))
        self.console.print(table)


def main() -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="deploy/local_stack.sh",
        description="Start PostgreSQL, an S3 server, a code server, two webservers and a daemon on this machine,"
        " process a batch of songs, and stop them.",
    )
    parser.add_argument("--keep", action="store_true", help="leave it up until Ctrl-C")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="for data and logs (default: local_stack/)"
    )
    parser.add_argument(
        "--first-port", type=int, metavar="N", help="listen on N (webserver), N+1 … (default: free ports)"
    )
    arguments = parser.parse_args()
    screen = Screen()
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    stack: LocalStack | None = None
    code, problems = 0, list[str]()
    try:
        stack = LocalStack(arguments.folder.absolute(), arguments.first_port)
        _use(stack, screen, keep=arguments.keep)
    except FORESEEN as error:
        screen.say(f"local stack: {error}", "red")
        code = 1
    except Interrupted as interrupted:
        screen.say(f"{interrupted}: stopping everything")
        code = interrupted.code
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # the clean-up must not be interrupted; it ends by itself
        if stack is not None:
            problems = stack.stop(screen.step)
    for problem in problems:
        screen.say(problem, "red")
    if stack is not None and not problems:
        screen.say(f"Everything has ended. Data and logs are in {stack.folder}")
    return code or bool(problems)


def _interrupt(number: int, _: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def _use(stack: LocalStack, screen: Screen, *, keep: bool) -> None:
    if opened := closed_to_others(stack.folder / "data" / "postgres"):
        folders = ", ".join(map(str, opened))
        screen.say(f"PostgreSQL does not run as root, so all users may now enter {folders}", "yellow")
    postgres = stack.start(screen.step, os.environ)
    if keep and any(stack.settings.open_store().list(CATALOG)):
        songs = read_catalog(stack.settings)
        screen.say(f"The catalog has {songs.height} songs from before")
    else:
        findings = _smoke(stack, screen)
        screen.show([("PostgreSQL", f"version {postgres.version()}"), *findings])
    if keep:
        _keep(stack, screen)


def _smoke(stack: LocalStack, screen: Screen) -> list[tuple[str, str]]:
    """Process the batch; returns the finding for each part."""
    batch = SmokeBatch(stack.settings, stack.webserver, f"smoke-{datetime.now():%Y%m%d-%H%M%S}")
    with screen.step("three songs are uploaded, one of them broken"):
        batch.upload(stack.folder / "songs", os.environ | stack.variables())
    with screen.step("the read-only webserver refuses to turn a sensor on"):
        refusal = batch.check_read_only(stack.read_only)
    with screen.step("the sensor has requested a run, and every song is materialized"):
        batch.process(stack.wait)
    with screen.step("the catalogs were refreshed by their sensor"):
        batch.await_catalogs(stack.wait)
    songs = batch.findings()
    return [
        ("S3", f"{stack.settings.storage} at {stack.s3.endpoint}"),
        ("daemons", ", ".join(sorted(name.lower() for name in stack.webserver.daemons(0)))),
        ("read-only webserver", refusal),
        *(
            (name, _verdict(row))
            for name, row in zip(songs["filename"], songs.iter_rows(named=True), strict=True)
        ),
    ]


def _verdict(song: dict[str, object]) -> str:
    if song["error"] is not None:
        return f"{song['status']}: {song['error']}"
    return f"{song['status']}: {song['duration_s']:.1f} s, {song['loudness_lufs']:.1f} LUFS"


def _keep(stack: LocalStack, screen: Screen) -> None:
    """Wait for a signal, or until a server has ended."""
    try:
        screen.say(f"\nThe UI: {stack.webserver.url}   read-only: {stack.read_only.url}")
        screen.say("To use it from another shell:\n")
        screen.say(stack.exports())
        screen.say("\nCtrl-C stops all of it.")
        while True:
            stack.check()
            time.sleep(1)
    except Interrupted as interrupted:
        screen.say(f"{interrupted}: stopping everything")


if __name__ == "__main__":
    sys.exit(main())
