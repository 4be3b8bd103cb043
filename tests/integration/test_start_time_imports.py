"""Libraries that a fresh Python loads: read-only commands start without Dagster and without the model libraries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from syntax_trees import HEAVY, PACKAGE, ROOT


def loaded_by(code: str, tmp_path: Path, *more: str) -> set[str]:
    """The watched libraries that a fresh Python has loaded after ``code``, also if ``code`` exits with status 0."""
    watched = ("dagster", *HEAVY, *more)
    program = (
        f"import json, sys\ntry:\n    {code}\nexcept SystemExit as ended:\n    assert not ended.code, ended.code\n"
        f"print('LOADED', json.dumps([name for name in {watched!r} if name in sys.modules]))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BANDSCOPE_")}
    environment |= {"BANDSCOPE_STORAGE": str(tmp_path / "empty"), "DAGSTER_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("LOADED ")[2]))


def command(*arguments: str) -> str:
    return f"sys.argv = {['bandscope', *arguments]!r}; from {PACKAGE}.cli.app import command_line; command_line()"


def test_the_code_location_loads_without_the_libraries_that_only_runs_need(tmp_path: Path) -> None:
    found = loaded_by(
        f"import {PACKAGE}.definitions", tmp_path, "av", "deltalake", "jinja2", f"{PACKAGE}.audio.cage"
    )
    assert found == {"dagster"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["sql", "SELECT 1 AS one"], ["models", "list"], ["vocabulary"], ["lineage", "--help"]],
    ids=" ".join,
)
def test_commands_that_only_look_start_without_dagster_and_the_model_libraries(
    arguments: list[str], tmp_path: Path
) -> None:
    assert loaded_by(command(*arguments), tmp_path) == set()
