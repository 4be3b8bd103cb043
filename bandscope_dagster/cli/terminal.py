"""The terminal of the commands: the console, progress bars, and errors without tracebacks."""

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


def progress_bar(console: Console) -> Progress:
    """A progress bar that shows, for each task, its description, how much is done, and the elapsed time."""
    description = TextColumn("{task.description}")
    return Progress(
        SpinnerColumn(), description, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
