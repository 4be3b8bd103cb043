"""Dagster's home: one ``bandscope run`` at a time, and records that one process creates."""

import ast
import fcntl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest
from syntax_trees import ALL, PACKAGE

from bandscope_dagster.orchestration import home
from bandscope_dagster.orchestration.home import (
    RECORDS_LOCK_NAME,
    HomeInUse,
    is_in_use,
    only_one,
    open_records,
)


def test_only_one_command_can_use_a_home(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(HomeInUse, match=str(tmp_path)), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        assert (tmp_path / "bandscope-run.lock").exists()


def test_other_processes_see_that_a_command_uses_the_home(tmp_path: Path) -> None:
    assert not is_in_use(tmp_path), "the home is new"
    with only_one(tmp_path):
        assert is_in_use(tmp_path)
    assert not is_in_use(tmp_path)


def test_the_databases_of_a_new_home_wait_for_a_process_that_creates_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))

    waits, lock_file = threading.Event(), fcntl.flock

    def noted(file: IO[str], operation: int) -> None:
        waits.set()
        lock_file(file, operation)

    def runs() -> int:
        with open_records() as instance:
            return instance.get_runs_count()

    with ThreadPoolExecutor() as pool:
        with (tmp_path / RECORDS_LOCK_NAME).open("a") as lock:
            lock_file(lock, fcntl.LOCK_EX)
            monkeypatch.setattr(home.fcntl, "flock", noted)
            opening = pool.submit(runs)
            assert waits.wait(20)
            assert not list(tmp_path.rglob("*.db")) and not opening.done()
        assert opening.result(60) == 0
    assert list(tmp_path.rglob("*.db"))


def test_the_records_of_a_home_that_this_user_may_not_write_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / RECORDS_LOCK_NAME).mkdir()  # it cannot be opened for writing, also by root
    with open_records() as instance:
        assert instance.get_runs_count() == 0


def test_every_command_opens_the_records_in_one_place() -> None:
    opening = {
        name
        for name, tree in ALL.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "dg.DagsterInstance.get"
    }
    assert opening == {f"{PACKAGE}.orchestration.home"}
