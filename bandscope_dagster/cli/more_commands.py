"""More commands of ``bandscope``: those of ``app.py`` would be too many for one module."""

from pathlib import Path
from typing import Annotated

import typer

from bandscope_dagster.cli.opened import settings_and_store
from bandscope_dagster.cli.terminal import console


def forget(
    songs: Annotated[
        list[str] | None,
        typer.Argument(help="Ids, file names or titles of songs, or globs such as 'live*'."),
    ] = None,
    gone: Annotated[
        bool, typer.Option("--gone", help="All songs whose upload is gone, or was replaced by another file.")
    ] = False,
    upload: Annotated[
        bool, typer.Option("--upload", help="Also move the uploads to the trash. Default: they stay.")
    ] = False,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Bring forgotten songs back, with the results that are in the trash."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before songs are forgotten.")] = False,
) -> None:
    """Remove songs: tables and page move to trash/, and the song leaves the catalogs and Dagster's partitions.

    Shows first what it will remove. No sensor and no run makes a forgotten song again, also if its upload stays.

    Exits with 1 if a song is left out, such as one that a run computes.
    """
    from bandscope_dagster.cli.forget import ForgetOptions, forget_songs, restore_songs
    from bandscope_dagster.orchestration.home import dagster_home

    settings, store = settings_and_store()
    home = dagster_home()
    if undo:
        complete = restore_songs(settings, store, home, console, songs or [])
    else:
        options = ForgetOptions(gone, upload, yes)
        complete = forget_songs(settings, store, home, console, songs or [], options)
    raise typer.Exit(0 if complete else 1)


def results(
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Wait for more: print each result as soon as it is stored."),
    ] = False,
    after: Annotated[
        str | None,
        typer.Option(help="Only results after this cursor, which is in each line of this command."),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--all", help="With --follow: first all earlier results.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per result.")] = False,
) -> None:
    """Print the result of each song of each run, in any process: ok, rejected or failed, and its instruments.

    With --follow and without --after or --all, it begins with the next result.
    """
    from bandscope_dagster.cli.results import print_results

    if after is not None and from_start:
        raise typer.BadParameter("--after and --all exclude each other")
    settings, store = settings_and_store()
    print_results(
        settings, store, console, after=after, from_start=from_start, following=follow, as_json=as_json
    )


def history(
    catalog: Annotated[
        str | None,
        typer.Argument(help="song_catalog, instrument_catalog or song_errors. Default: all three."),
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", min=1, help="Only the newest N versions of each.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per version.")] = False,
) -> None:
    """List the versions of the catalogs, the newest first: when, by which refresh, and how many songs it changed.

    `bandscope sql --as-of TIME` reads one. Versions are kept for BANDSCOPE_HISTORY_DAYS.
    """
    from bandscope_dagster.cli.history import print_history

    _, store = settings_and_store()
    print_history(store, console, catalog, last=last, as_json=as_json)


def vocabulary(
    labels: Annotated[
        list[str] | None, typer.Argument(help="Labels in your own words, such as 'warm rhodes piano'.")
    ] = None,
) -> None:
    """List the instruments of the vocabulary, or show the instrument for each label, and why."""
    from bandscope_dagster.cli.vocabulary import print_matches

    print_matches(console, labels or [])


def doctor(
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Also read every stored file, and compare the store with Dagster's records."
        ),
    ] = False,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only", help="Check only what reading needs: the settings, and reading the store."
        ),
    ] = False,
) -> None:
    """Check the settings, storage, device, models and Dagster home that a run needs. Exits with 1 if a check fails."""
    from bandscope_dagster.cli.doctor import examine

    raise typer.Exit(0 if examine(console, read_only=read_only, deep=deep) else 1)


def describe(
    croissant: Annotated[
        bool, typer.Option("--croissant", help="Write Croissant 1.1 (JSON-LD) instead of the data card.")
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(
            help="File to write to. Default: README.md, or croissant.json, at the root of the store."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --to if it exists.")] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the data set. Default: the last part of the store's address.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the songs: an SPDX identifier, or a URL. Their files do not say it."),
    ] = None,
    creator: Annotated[
        str | None, typer.Option(help="Person or organisation that made the data set.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Address at which the data set is published.")] = None,
    cite: Annotated[str | None, typer.Option(help="How to cite the data set.")] = None,
) -> None:
    """Describe the store as a data set: a data card (README.md), or Croissant for programs.

    A file in the store that a person wrote or edited is never replaced.
    """
    from bandscope_dagster.cli.describe import describe as write_description
    from bandscope_dagster.describing.stated import Stated

    settings, store = settings_and_store()
    known = Stated(name or store.url.rstrip("/").rpartition("/")[2] or "songs", licence, creator, url, cite)
    write_description(settings, store, console, known, to, as_croissant=croissant, force=force)
