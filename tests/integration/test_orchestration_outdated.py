"""Outdated songs: what was computed with other models or parameters is found and computed again, and no more."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from command_processes import bandscope, finish
from instances import new_instance
from platforms import ASSETS, Platform, local_settings, song_bytes

from bandscope_dagster.input_digests import CODE_VERSIONS
from bandscope_dagster.orchestration.outdated import CODE_VERSION_TAG, find_outdated
from bandscope_dagster.orchestration.retry_backfill import retry_songs
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS

TAGGED = ("songs", "instrument_tags")


def test_a_change_of_the_tagger_makes_its_tables_outdated_and_a_run_makes_them_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_instance() as instance:
        home = Path(instance.root_directory)
        before = local_settings(tmp_path / "store")
        platform = Platform(before, instance)
        platform.upload({f"{name}.wav": song_bytes(seed, 0.6) for seed, name in enumerate("abc")})
        run = platform.materialize(TAGGED)
        assert run.success
        songs, store = platform.songs, platform.store

        def outdated(assets=TAGGED, **settings: object) -> set[str]:
            chosen = local_settings(tmp_path / "store", **settings)
            return find_outdated(instance, store, chosen, songs, assets).songs

        # The UI compares the version of the asset with that of each song's last materialization.
        specs = {key.to_user_string(): spec for each in ASSETS for key, spec in each.specs_by_key.items()}
        for asset in TAGGED:
            tags = {event.tags[CODE_VERSION_TAG] for event in platform.events(run.run_id, asset).values()}
            assert tags == {specs[asset].code_version}
            assert specs[asset].code_version.startswith(f"{CODE_VERSIONS[asset]}-")
        # An external asset is always "INITIAL": with any other input, the UI would show every song as outdated.
        inputs = {
            event.tags["dagster/input_data_version/uploads"]
            for event in platform.events(run.run_id, "songs").values()
        }
        assert inputs == {"INITIAL"}
        assert specs["instrument_tags"].metadata["tagger"] == before.tagger
        # The files have the code version alone, as those of earlier versions.
        assert read_lineage(store, INSTRUMENT_TAGS, songs[0]).code_version == CODE_VERSIONS["instrument_tags"]

        assert outdated() == outdated(tag_batch=3) == outdated(separator="htdemucs") == set()
        assert (
            outdated(tagger="musicnn")
            == outdated(tag_hop_s=0.5)
            == outdated(min_duration_s=0.3)
            == set(songs)
        )
        assert outdated(("songs",), tagger="musicnn") == set()

        # A record of an earlier version has no parameters: what contradicts nothing is reported again, not counted.
        instance.report_runless_asset_event(
            dg.AssetMaterialization("instrument_tags", partition=songs[0], tags={CODE_VERSION_TAG: "2"})
        )
        found = find_outdated(instance, store, before, songs, TAGGED)
        assert (found.songs, found.without_version) == (set(), {songs[0]})

        musicnn = local_settings(tmp_path / "store", tagger="musicnn")
        assert (
            retry_songs(instance, store, TAGGED, musicnn).backfill_id is None
        )  # nothing failed or is missing
        retry = retry_songs(instance, store, TAGGED, musicnn, outdated=True)
        assert [part.songs for part in retry.ranges] == [tuple(songs)] and retry.backfill_id is not None

        rows = {song: store.read(f"songs/{song}.parquet") for song in songs}
        monkeypatch.setenv("BANDSCOPE_TAGGER", "musicnn")
        selection = ["--outdated", "--select", ",".join(TAGGED)]
        finish(bandscope(tmp_path / "store", home, "run", *selection))
        assert outdated(tagger="musicnn") == set()
        assert find_outdated(instance, store, before, songs, TAGGED).songs == set(songs)
        tables = [pl.read_parquet(store.uri(f"instrument_tags/{song}.parquet")) for song in songs]
        assert {model for table in tables for model in table["model"]} == {"musicnn"}
        assert {song: store.read(f"songs/{song}.parquet") for song in songs} == rows, (
            "a current row was computed"
        )
