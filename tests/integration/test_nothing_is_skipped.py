"""Runs that people start in the UI do what they say, or fail with what to do instead; no step is skipped in silence."""

from pathlib import Path

import dagster as dg
from instances import new_instance
from platforms import ASSETS, PER_SONG, Platform, local_settings, song_bytes

from assets.catalog import AGREES
from bandscope_dagster.orchestration.jobs import CATALOGS
from bandscope_dagster.orchestration.resources import resources


def test_a_run_over_all_assets_also_makes_the_catalogs_and_the_page(tmp_path: Path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({"a.wav": song_bytes(1, 0.6), "empty.wav": b""})
        done = platform.materialize((*PER_SONG, *CATALOGS, "song_pages"))
        assert done.success
        skipped = [event for event in done.all_events if event.is_step_skipped]
        assert skipped == []
        for asset in (*PER_SONG, "song_pages"):
            assert set(platform.events(done.run_id, asset)) == set(platform.songs)
        assert set(platform.table("song_catalog")["song_id"]) == set(platform.songs)

        agree = {
            check.asset_key.to_user_string(): check for check in checks_of(done) if check.check_name == AGREES
        }
        assert set(agree) == set(CATALOGS) and all(check.passed for check in agree.values()), agree
        made, _, errors = done.asset_materializations_for_node("catalogs")
        assert [problem.data["status"] for problem in errors.metadata["latest_problems"].records] == [
            "rejected"
        ]
        assert made.metadata["songs_ok"].value == made.metadata["songs_rejected"].value == 1

        # "Execute all" on the checks of an asset, and runs that name no song.
        run = {"instance": instance, "resources": resources(platform.settings), "raise_on_error": False}
        checks = dg.AssetSelection.checks_for_assets(dg.AssetKey("songs"))
        for selection, words in ((checks, "Materialize the asset"), (["songs"], "names no song")):
            [failure] = [
                event
                for event in dg.materialize(ASSETS, selection=selection, **run).all_events
                if event.is_step_failure
            ]
            assert words in failure.step_failure_data.user_failure_data.description


def checks_of(done: dg.ExecuteInProcessResult) -> list[dg.AssetCheckEvaluation]:
    return done.get_asset_check_evaluations()
