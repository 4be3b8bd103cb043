"""The lock of Dagster's home: one ``bandscope run`` at a time."""

from pathlib import Path

import pytest

from bandscope_dagster.orchestration.home import HomeInUse, is_in_use, only_one


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
