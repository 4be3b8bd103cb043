"""The commands ``bandscope models …``. Each imports what it needs when it runs, so that the others start at once."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

models_app = typer.Typer(
    help="The models: what is listed, whether the files are right, and how to get them.",
    no_args_is_help=True,
)
console = Console()


@models_app.command("list")
def models_list() -> None:
    """The models that Bandscope knows, and whether their files are here."""
    from bandscope_dagster.cli.models import print_models
    from bandscope_dagster.settings import load_settings

    print_models(console, load_settings())


@models_app.command("verify")
def models_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Models that must be complete.")] = None,
) -> None:
    """Check size and full SHA-256 of every model file.

    Exits with 1 if a file is wrong, or missing where one is needed: of a model that is named here, is part of the
    package or is chosen by the settings, or of one that is here in part.
    """
    from bandscope_dagster.cli.models import print_verification
    from bandscope_dagster.settings import load_settings

    raise typer.Exit(0 if print_verification(console, load_settings(), names or []) else 1)


@models_app.command("pull")
def models_pull(
    names: Annotated[list[str], typer.Argument(help="Models, as `bandscope models list` names them.")],
) -> None:
    """Download the weights of models, check them, and put them into BANDSCOPE_MODELS_FOLDER.

    What is there and right is not downloaded again.
    """
    from bandscope_dagster.cli.models import pull_models
    from bandscope_dagster.settings import load_settings

    pull_models(console, load_settings(), names)


@models_app.command("add")
def models_add(
    name: Annotated[str, typer.Argument(help="A model, as `bandscope models list` names it.")],
    sources: Annotated[
        list[Path],
        typer.Option("--from", exists=True, help="A file of the model, or a folder to search; repeatable."),
    ],
) -> None:
    """Put a model's files in place from copies, for machines without a network.

    Files are known by their content, whatever their names; of models whose digests are not listed (ast, qwen…) by
    their names.

    Exits with 1 if a named file is none of the model's, or if files are still missing.
    """
    from bandscope_dagster.cli.models import add_model
    from bandscope_dagster.settings import load_settings

    add_model(console, load_settings(), name, sources)
