"""Two commands never work on one Dagster home at a time."""

from pathlib import Path

import pytest

from bandscope_dagster.orchestration.home_lock import HomeInUse, is_in_use, only_one


def test_two_commands_cannot_work_on_one_home(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(HomeInUse, match=str(tmp_path)), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        assert (tmp_path / "bandscope-run.lock").exists()


def test_others_see_whether_a_command_is_at_work(tmp_path: Path) -> None:
    assert not is_in_use(tmp_path), "never used"
    with only_one(tmp_path):
        assert is_in_use(tmp_path)
    assert not is_in_use(tmp_path)
