"""The ``bandscope`` command. Each command imports what it needs when it runs, so that the others start at once."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from bandscope_dagster.allocator import restart_without_thread_caches, share_freed_memory
from bandscope_dagster.cli.models_app import models_app
from bandscope_dagster.errors import BandscopeError

if TYPE_CHECKING:
    from bandscope_dagster.settings import Settings
    from bandscope_dagster.storage.objects.protocol import ObjectStore

app = typer.Typer(
    help="Songs in an object store become stems, instrument tags and queryable Parquet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models_app, name="models")

console = Console()


def main() -> None:
    """Run the command line; an error that was foreseen is printed as a sentence, without a traceback."""
    share_freed_memory()
    try:
        app()
    except BandscopeError as error:
        _complain(str(error))
        sys.exit(1)
    except OSError as error:  # of a disk, a file's permissions or the store; a traceback would add nothing
        _complain(f"{type(error).__name__}: {error}")
        sys.exit(1)


def _complain(text: str) -> None:
    Console(stderr=True).print(f"[red]bandscope:[/red] {_escaped(text)}", highlight=False, soft_wrap=True)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _open() -> "tuple[Settings, ObjectStore]":
    from bandscope_dagster.settings import load_settings

    settings = load_settings()
    return settings, settings.open_store()


@contextmanager
def _progress() -> Generator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Audio files, or folders that are searched for them.")],
    owner: Annotated[
        str | None, typer.Option(help="Whose songs these are: the first folder of the upload.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Upload a changed file over the one that is there; it is a new song."),
    ] = False,
) -> None:
    """Copy songs into the store's uploads/. What is already there is left as it is.

    Folders keep their shape; their first level is the owner unless --owner names one.

    Exits with 1 if a file was left out because another one of its name is there.
    """
    from collections import Counter

    from bandscope_dagster.cli.ingest import Ingested, find_files
    from bandscope_dagster.cli.ingest import ingest as ingest_file

    _, store = _open()
    files = find_files(paths, owner)
    counts: Counter[Ingested] = Counter()
    with _progress() as progress:
        task = progress.add_task("uploading", total=len(files))
        for file in files:
            outcome = ingest_file(store, file, replace=replace)
            counts[outcome] += 1
            if outcome is Ingested.CONFLICT:
                progress.console.print(f"{_escaped(file.key)}: {outcome}", highlight=False)
            progress.advance(task)
    for outcome, count in counts.items():
        console.print(f"{count} {outcome.split(':')[0]}", highlight=False)
    console.print(f"The uploads lie in {_escaped(store.uri('uploads'))}", highlight=False, soft_wrap=True)
    if counts[Ingested.CONFLICT]:
        raise typer.Exit(1)


@app.command()
def run(
    songs: Annotated[
        str | None, typer.Option(help="Only songs of this id or file name, or of a glob such as 'live*'.")
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            help="Only these per-song assets, such as stems,instrument_tags; the rest is left alone."
        ),
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute songs again that are done; without it they are kept.")
    ] = False,
) -> None:
    """Register new uploads and compute what their songs lack, in this process. Run it again to go on.

    Exits with 1 if a song failed. A rejected song is no failure: `bandscope status` tells why it was rejected.
    """
    restart_without_thread_caches()
    from bandscope_dagster.cli.run import run_songs
    from bandscope_dagster.orchestration.home import dagster_home

    settings, store = _open()
    assets = select.replace(",", " ").split() if select else None
    failed = run_songs(
        settings, store, dagster_home(), console, _progress, songs, assets, recompute=recompute
    )
    raise typer.Exit(1 if failed else 0)


@app.command()
def retry(
    select: Annotated[
        str | None, typer.Option(help="Only these per-song assets, such as stems,instrument_tags.")
    ] = None,
) -> None:
    """Hand failed and missing songs to the Dagster daemon, as one backfill that keeps what is done."""
    from bandscope_dagster.cli.retry import retry as request_retry
    from bandscope_dagster.orchestration.home import dagster_home

    settings, _ = _open()
    assets = select.replace(",", " ").split() if select else None
    request_retry(settings, dagster_home(), console, assets)


@app.command()
def status(
    song: Annotated[
        str | None, typer.Argument(help="A song's id, file name or title, or a glob; all songs if left out.")
    ] = None,
) -> None:
    """Tell how far every song got, or all that is known of some songs."""
    from bandscope_dagster.cli.status import print_overview, print_songs

    _, store = _open()
    if song is None:
        print_overview(store, console)
    else:
        print_songs(store, console, song)


@app.command()
def sql(
    query: Annotated[
        str,
        typer.Argument(help="A SELECT over the tables, e.g. songs, stems, instrument_tags, song_catalog."),
    ],
    answer_format: Annotated[
        Literal["table", "csv", "json", "parquet"] | None,
        typer.Option(
            "--format", help="How to give the answer; without it by the name of --to, or as a table."
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="The file that gets the answer, instead of the screen.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Answer a query over all tables; nothing can be written to them."""
    from bandscope_dagster.cli.sql import show

    _, store = _open()
    show(store, query, typer.echo, console.width, answer_format, to, force=force)


@app.command()
def lineage(
    song: Annotated[str, typer.Argument(help="A song's id, file name or title, or a glob.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="An object for each song, on a line of its own.")
    ] = False,
) -> None:
    """Tell what each table of a song was made from, by its files alone, and what no longer fits."""
    from bandscope_dagster.cli.lineage import print_lineage

    _, store = _open()
    print_lineage(store, console, song, as_json=as_json)


@app.command()
def export(
    to: Annotated[Path, typer.Option(help="The folder that gets a folder for each song.")],
    songs: Annotated[
        list[str] | None, typer.Argument(help="Ids, file names or titles of songs, or globs such as 'live*'.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help='Only songs that meet this SQL condition over song_catalog, e.g. "duration_s < 100".'
        ),
    ] = None,
    audio_format: Annotated[Literal["wav", "flac", "mp3"], typer.Option("--format")] = "wav",
    bits: Annotated[
        Literal["16", "24", "32f"] | None,
        typer.Option(
            help="Of a sample; without it 32-bit floats in wav, which never clip, and 24 bits in flac."
        ),
    ] = None,
    normalise: Annotated[
        float | None,
        typer.Option(
            min=-70, max=0, help="Loudness of the mixture in LUFS, with one gain for all stems of a song."
        ),
    ] = None,
    mixture: Annotated[bool, typer.Option("--mixture", help="Write the mixture too.")] = False,
) -> None:
    """Write the stems of songs as audio files, and their instruments as CSV. What is there already is kept.

    Exits with 1 if a song has no stems; the others are written.
    """
    from bandscope_dagster.cli.export import export as export_songs
    from bandscope_dagster.cli.export import select_songs
    from bandscope_dagster.exporting.encodings import find_encoding
    from bandscope_dagster.exporting.song_export import ExportOptions

    options = ExportOptions(find_encoding(audio_format, bits), normalise, mixture)
    _, store = _open()
    failed = export_songs(store, console, _progress, select_songs(store, songs or [], where), to, options)
    raise typer.Exit(1 if failed else 0)


@app.command()
def report(
    song: Annotated[str | None, typer.Argument(help="A song's id, file name or title, or a glob.")] = None,
    all_songs: Annotated[
        bool, typer.Option("--all", help="Every song whose page is not up to date.")
    ] = False,
    to: Annotated[Path | None, typer.Option(help="A folder, instead of song_pages/ in the store.")] = None,
) -> None:
    """Write a page for every song, which plays its stems and shows its instruments, and an index of them.

    Exits with 1 if a song failed; the others are written.
    """
    from bandscope_dagster.cli.report import report as write_report

    settings, store = _open()
    failed = write_report(settings, store, console, _progress, song, to, all_songs=all_songs)
    raise typer.Exit(1 if failed else 0)


@app.command()
def vocabulary(
    labels: Annotated[
        list[str] | None, typer.Argument(help="Labels in any words, such as 'warm rhodes piano'.")
    ] = None,
) -> None:
    """The instruments that tags are given in, or what becomes of a model's labels, and why."""
    from bandscope_dagster.cli.vocabulary import print_matches

    print_matches(console, labels or [])


@app.command()
def doctor() -> None:
    """Check all that a run needs: settings, storage, device, models, Dagster's home. Exits with 1 if one fails."""
    from bandscope_dagster.cli.doctor import examine

    raise typer.Exit(0 if examine(console) else 1)
