"""The terminal of the commands: the console, progress bars, and errors without tracebacks."""

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

console = Console()


def print_error(message: str) -> None:
    """Print ``bandscope: message`` to standard error."""
    Console(stderr=True).print(f"[red]bandscope:[/red] {escape(message)}", highlight=False, soft_wrap=True)


@contextmanager
def progress_bar() -> Generator[Progress]:
    """A progress bar that shows, for each task, its description, how much is done, and the elapsed time."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield progress
