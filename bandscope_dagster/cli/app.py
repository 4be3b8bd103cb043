"""The commands of ``bandscope``. Each imports its module when it runs, so that every command starts fast."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from bandscope_dagster.allocator import restart_without_thread_caches, share_freed_memory
from bandscope_dagster.cli.models_app import models_app
from bandscope_dagster.cli.more_commands import describe, doctor, forget, history, results, vocabulary
from bandscope_dagster.cli.opened import settings_and_store
from bandscope_dagster.cli.process_end import direct_exit
from bandscope_dagster.cli.tasks_app import export, find, separate
from bandscope_dagster.cli.terminal import console, print_error, print_raw, words_of
from bandscope_dagster.errors import BandscopeError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models_app, name="models")
for task in (separate, find, export):
    app.command()(task)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print_raw(f"bandscope {version('bandscope')}")
        raise typer.Exit


def _time(text: str) -> datetime:
    """A time in any form of ISO 8601, or as ``bandscope history`` prints it."""
    try:
        return datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time; give one such as 2026-03-02, '2026-03-02 08:00:00 UTC' or 2026-03-02T08:00:00+01:00"
        ) from None


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Separate songs in an object store into stems, tag their instruments, and query both as Parquet."""


Select = Annotated[
    str | None,
    typer.Option(help="Only these per-song assets, separated by commas, such as stems,instrument_tags."),
]

Songs = Annotated[
    str | None,
    typer.Option(help="Only songs with this id or file name, or that match a glob such as 'live*'."),
]

Outdated = Annotated[
    bool, typer.Option("--outdated", help="Only songs that other models, parameters or code computed.")
]


def main() -> None:
    """The program ``bandscope``: run the command line, and end the process."""
    with direct_exit():
        share_freed_memory()
        command_line()


def command_line() -> None:
    """Run the command line; raises SystemExit. An expected error is printed as a message, without a traceback."""
    try:
        app()
    except BandscopeError as error:
        print_error(str(error))
        sys.exit(1)
    except OSError as error:  # of a disk, a file's permissions or the store: a traceback would not help
        print_error(words_of(error))
        sys.exit(1)


@app.command()
def ingest(
    # As text: an empty one would be the current folder as a path, and one unreadable path would refuse all.
    paths: Annotated[list[str], typer.Argument(help="Audio files, or folders to search for audio files.")],
    owner: Annotated[
        str | None, typer.Option(help="Owner of the songs: the first folder below uploads/.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Replace uploads that have the same name but other content. Each becomes a new song.",
        ),
    ] = False,
) -> None:
    """Upload songs to uploads/ in the store. Files that are already uploaded are not changed.

    Subfolders are kept. Without --owner, the first subfolder is the owner.

    Exits with 1 if a file was left out, such as one that cannot be read, or one whose name a different file has.
    """
    from bandscope_dagster.cli.ingest import ingest_files
    from bandscope_dagster.orchestration.home import has_home

    _, store = settings_and_store()
    has_home()
    given = ingest_files(store, console, paths, owner, replace=replace)
    raise typer.Exit(0 if given.complete else 1)


@app.command()
def run(
    songs: Songs = None,
    select: Select = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute again what is already up to date.")
    ] = False,
    outdated: Outdated = False,
    as_new_songs: Annotated[
        bool,
        typer.Option(
            "--as-new-songs",
            help="Compute all songs of a store that was copied without the times of its files.",
        ),
    ] = False,
    no_space_check: Annotated[
        bool, typer.Option("--no-space-check", help="Begin even if the disk is too small by an estimate.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and process uploads as they come, until Ctrl-C.")
    ] = False,
) -> None:
    """Process new uploads: separate and tag every song that is not finished. Run it again to continue.

    Files that are missing or damaged in the store are computed again, also catalogs and pages.

    Exits with 1 if a song of this run failed. Rejected songs do not count as failed; `bandscope status` shows why.
    """
    if watch and (songs is not None or recompute or outdated or as_new_songs):
        raise typer.BadParameter(
            "--watch takes all songs: use it alone, or with --select or --no-space-check"
        )
    restart_without_thread_caches()
    from bandscope_dagster.cli.result_posts import results_posted
    from bandscope_dagster.cli.run import RunOptions, run_songs
    from bandscope_dagster.orchestration.home import dagster_home

    settings, store = settings_and_store()
    options = RunOptions(recompute, as_new_songs, check_space=not no_space_check, outdated=outdated)
    home = dagster_home()
    with results_posted(settings, store, console, stays=watch) as shown:
        if watch:
            from bandscope_dagster.cli.watch import watch_uploads

            watch_uploads(settings, store, home, shown, select or None, with_space_check=options.check_space)
            return
        failed = run_songs(settings, store, home, shown, songs, select or None, options)
    raise typer.Exit(1 if failed else 0)


@app.command()
def retry(
    select: Select = None,
    outdated: Outdated = False,
    songs: Songs = None,
) -> None:
    """Ask the Dagster daemon to compute failed or missing results, as one backfill. Finished results are kept."""
    from bandscope_dagster.cli.retry import retry as request_retry
    from bandscope_dagster.orchestration.home import dagster_home

    settings, store = settings_and_store()
    request_retry(settings, store, dagster_home(), console, select or None, outdated=outdated, pattern=songs)


@app.command()
def status(
    song: Annotated[
        str | None, typer.Argument(help="Id, file name or title of a song, or a glob. Default: all songs.")
    ] = None,
    paths: Annotated[bool, typer.Option("--paths", help="Also the paths of the song's files.")] = False,
) -> None:
    """Show the status of all songs, or the details of the given songs."""
    from bandscope_dagster.cli.other_taggers import print_other_taggers
    from bandscope_dagster.cli.status import print_overview, print_songs
    from bandscope_dagster.cli.status_remarks import print_records
    from bandscope_dagster.pipeline.uploads import list_uploads
    from bandscope_dagster.songs.status import SOURCES
    from bandscope_dagster.storage.tables.song_files import list_song_files
    from bandscope_dagster.tagging.registry import present_from

    settings, store = settings_and_store()
    if song is None:
        files, listing = list_song_files(store, SOURCES), list_uploads(store)
        print_overview(files, listing, console)
        print_other_taggers(store, console, settings.tagger)
        print_records(files, listing, console, settings)
    else:
        rule = present_from(settings.present_from, settings.audible_db)
        print_songs(store, console, song, rule, paths=paths)


@app.command()
def sql(
    query: Annotated[
        str,
        typer.Argument(help="A SELECT from the tables, such as songs, stems, instrument_tags, song_catalog."),
    ],
    answer_format: Annotated[
        Literal["table", "csv", "json", "parquet"] | None,
        typer.Option(
            "--format", help="Format of the result. Default: by the extension of --to, else a table."
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            parser=_time,
            metavar="TIME",
            help="The catalogs as they were at this time (UTC, or with its zone), such as 2026-03-02T08:00:00.",
        ),
    ] = None,
) -> None:
    """Query the tables with SQL. The tables are read-only.

    In CSV, an apostrophe comes before text that a spreadsheet would take for a formula. JSON and Parquet have none.
    """
    from bandscope_dagster.cli.sql import show

    _, store = settings_and_store()
    show(store, query, print_raw, console.width, answer_format, to, force=force, as_of=as_of)


@app.command()
def lineage(
    song: Annotated[str, typer.Argument(help="Id, file name or title of a song, or a glob.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per song.")] = False,
) -> None:
    """Show the inputs, models and parameters of each table of a song, and which tables are outdated."""
    from bandscope_dagster.cli.lineage import print_lineage

    _, store = settings_and_store()
    print_lineage(store, console, song, as_json=as_json)


@app.command()
def report(
    song: Annotated[str | None, typer.Argument(help="Id, file name or title of a song, or a glob.")] = None,
    all_songs: Annotated[
        bool, typer.Option("--all", help="All songs; pages that are up to date are kept.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: song_pages/ in the store.")
    ] = None,
) -> None:
    """Write an HTML page for each song, with a player for its stems and its instruments, and an index.

    Exits with 1 if a song failed; the other pages are written.
    """
    from bandscope_dagster.cli.report import report as write_report

    settings, store = settings_and_store()
    failed = write_report(settings, store, console, song, to, all_songs=all_songs)
    raise typer.Exit(1 if failed else 0)


for command in (forget, history, results, vocabulary, describe, doctor):
    app.command()(command)
