"""The commands ``bandscope models …``. Each imports its module when it runs, so that every command starts fast."""

from pathlib import Path
from typing import Annotated

import typer

from bandscope_dagster.cli.terminal import console

models_app = typer.Typer(help="List, verify, download and add models.", no_args_is_help=True)


@models_app.command("list")
def models_list() -> None:
    """List all models, the state of their files, and what was said about the licences of their weights."""
    from bandscope_dagster.cli.models import print_models
    from bandscope_dagster.settings import load_settings

    print_models(console, load_settings())


@models_app.command("verify")
def models_verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Models or presets to check, which must be complete. Default: all."),
    ] = None,
) -> None:
    """Check the size and SHA-256 of every model file.

    Exits with 1 if a file is wrong, or if a needed file is missing. Needed are the models that are named here, are
    part of the package or are chosen by the settings, and models of which some files are present.
    """
    from bandscope_dagster.cli.models import print_verification
    from bandscope_dagster.settings import load_settings

    raise typer.Exit(0 if print_verification(console, load_settings(), names or []) else 1)


@models_app.command("pull")
def models_pull(
    names: Annotated[
        list[str], typer.Argument(help="Names of models or presets; see `bandscope models list`.")
    ],
    accept_unknown_licence: Annotated[
        bool,
        typer.Option(
            "--accept-unknown-licence",
            help="Also models whose weights have no licence, or several, by their authors.",
        ),
    ] = False,
) -> None:
    """Download the weights of models to BANDSCOPE_MODELS_FOLDER and verify them.

    Correct files that are already there are not downloaded again.
    """
    from bandscope_dagster.cli.models import pull_models
    from bandscope_dagster.settings import load_settings

    pull_models(console, load_settings(), names, accept_unknown_licence)


@models_app.command("add")
def models_add(
    name: Annotated[str, typer.Argument(help="Name of a model; see `bandscope models list`.")],
    sources: Annotated[
        list[Path],
        typer.Option("--from", exists=True, help="A file of the model, or a folder to search. Repeatable."),
    ],
) -> None:
    """Add a model from local files, for machines without a network.

    Files are recognised by their content; their names do not matter. Files of models without listed digests (ast,
    qwen…) are recognised by their names.

    Exits with 1 if a given file does not belong to the model, or if files are still missing.
    """
    from bandscope_dagster.cli.models import add_model
    from bandscope_dagster.settings import load_settings

    add_model(console, load_settings(), name, sources)
