"""Dagster instances for tests, with the records of a user's home, on copies of one empty home.

Making the databases of a home takes a third of a second.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import dagster as dg
import yaml

from bandscope_dagster.orchestration.home import DAGSTER_YAML

OPTIONS = yaml.safe_load(DAGSTER_YAML)


@cache
def _empty_home() -> "tempfile.TemporaryDirectory[str]":
    """A home whose databases have their tables; it is deleted with the process."""
    home = tempfile.TemporaryDirectory(prefix="dagster-home-")
    with dg.instance_for_test(OPTIONS, temp_dir=home.name) as instance:
        instance.get_runs()
        instance.all_instigator_state()
    return home


@contextmanager
def new_instance(like: str | None = None) -> Iterator[dg.DagsterInstance]:
    """A new instance with DAGSTER_HOME set to its home, as by ``dg.instance_for_test``; deleted at the end.

    Its records are those of the home ``like``, if it is given.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        shutil.copytree(like or _empty_home().name, home, dirs_exist_ok=True)
        with dg.instance_for_test(OPTIONS, temp_dir=home) as instance:
            yield instance
