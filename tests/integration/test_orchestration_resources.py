"""Models: each is loaded once in a process, and before the step that needs it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import wait_for
from instances import new_instance
from platforms import Platform, local_settings

from bandscope_dagster.orchestration import resources
from bandscope_dagster.orchestration.resources import Models


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    for load in (resources._separator, resources._tagger):
        load.cache_clear()
    yield


def test_two_threads_load_a_model_once_and_no_other_model(tmp_path: Path) -> None:
    models = Models(local_settings(tmp_path))
    for _ in range(2):
        models.load_ahead(["instrument_tags"])
    assert models.tagger() is models.tagger()
    assert resources._tagger.cache_info().misses == 1
    assert resources._separator.cache_info().misses == 0


def test_a_run_loads_the_models_of_its_tables_while_the_uploads_are_checked(tmp_path: Path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload(
            {"broken.wav": b"RIFF, and no more"}
        )  # without a usable song, the analysis loads nothing
        assert platform.materialize(["songs", "instrument_tags"]).success
        wait_for("the tagger is loaded", lambda: resources._tagger.cache_info().currsize, 300)
        assert resources._separator.cache_info().currsize == 0
