"""The terminal of the commands: the console, progress bars, and errors without tracebacks."""

import json
import os
import unicodedata
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.segment import Segment

INVISIBLE: Final = {
    "Cc",
    "Cf",
    "Cs",
    "Zl",
    "Zp",
}  # Unicode categories: control, format, surrogate, line, paragraph
JOINERS: Final = "\u200c\u200d"  # format characters that words of some languages and emoji need


def printable(text: str) -> str:
    """``text`` with escapes such as ``\\u001b`` for invisible characters, apart from newlines and tabs.

    A name from an upload may hold commands to the terminal, or marks that change the direction of writing.
    """
    return "".join(
        character if character in "\n\t" or not _is_invisible(character) else _escaped(character)
        for character in text
    )


def one_line(text: object) -> str:
    """The same, in one line: newlines and tabs become escapes too."""
    return "".join(_escaped(each) if _is_invisible(each) else each for each in str(text))


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in INVISIBLE and character not in JOINERS


def _escaped(character: str) -> str:
    """Valid in JSON too."""
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"


class SafeConsole(Console):
    """A console that prints all text as ``printable`` text: only Rich itself sends commands to the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See ``Console.render``, through which all output goes."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


console = SafeConsole()


class LastingConsole(SafeConsole):
    """A console of ``lasting_console``."""


@contextmanager
def lasting_console(console: Console) -> Generator[Console]:
    """A console that still draws while Dagster redirects descriptor 1 to the log of a step; only in a terminal.

    It writes to a duplicate of the descriptor. ``console`` itself is returned where it is no terminal, has no
    descriptor, or lasts already: on one terminal, bars and lines need one console.
    """
    is_short_lived = console.is_terminal and not isinstance(console, LastingConsole)
    try:
        descriptor = os.dup(console.file.fileno()) if is_short_lived else None
    except (OSError, ValueError):
        descriptor = None
    if descriptor is None:
        yield console
        return
    with open(descriptor, "w", encoding=console.encoding, errors="replace") as terminal:
        yield LastingConsole(file=terminal)


def print_error(message: str) -> None:
    """Print ``bandscope: message`` to standard error."""
    SafeConsole(stderr=True).print(
        f"[red]bandscope:[/red] {escape(message)}", highlight=False, soft_wrap=True
    )


def print_note(message: str) -> None:
    """Print to standard error, beside an output that programs read."""
    SafeConsole(stderr=True).print(escape(message), highlight=False, soft_wrap=True)


def words_of(error: OSError) -> str:
    """The message without Python's class and number, as in "No space left on device: /store/songs"."""
    if error.strerror is None:
        return str(error)
    return ": ".join(str(part) for part in (error.strerror, error.filename) if part is not None)


def of_song(song_id: str, error: Exception) -> str:
    """The message of an error, with the song's id."""
    words = words_of(error) if isinstance(error, OSError) else str(error)
    return words if song_id in words else f"{song_id}: {words}"


def print_raw(text: str) -> None:
    """Print a text as it is: without styles, and without line breaks at the width of the terminal."""
    console.out(text, highlight=False)


def progress_bar(console: Console, *, hidden: bool = False) -> Progress:
    """A progress bar that shows, for each task, its description, how much is done, and the elapsed time.

    ``hidden`` is for an empty task, of which nothing should stay on the screen.
    """
    description = TextColumn("{task.description}")
    return Progress(
        SpinnerColumn(),
        description,
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=hidden,
    )
