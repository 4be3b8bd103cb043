"""Plans: the tables to compute, the tables to keep, songs that cannot be analyzed, and input digests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from song_rows import block_rows, song_row

from bandscope_dagster.errors import CannotAnalyze, is_failure
from bandscope_dagster.input_digests import CODE_VERSIONS, digest, is_current
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.pipeline import plan as plan_module
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES, SongPlan, SongPlanner, read_song
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import SONGS, STEMS, TABLES
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table

SONG = song_row("song", song_hash="ab" * 32, upload_key="uploads/song.wav", duration_s=20.0)
REJECTED = SONG | {"error": "truncated: 1 of 2 s"}
PLANNER = SongPlanner(
    run_id="run",
    separator=ModelIdentity("separator", "11" * 32, {"overlap": 0.25}),
    tagger=ModelIdentity("tagger", "22" * 32, {"hop": 1}),
)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def plan(
    store: ObjectStore,
    tables: tuple[str, ...] = ANALYSIS_TABLES,
    *,
    planner: SongPlanner = PLANNER,
    song: dict[str, Any] = SONG,
    reuse: bool = True,
) -> SongPlan:
    return planner.plan(store, song, tables, reuse=reuse)


def carry_out(store: ObjectStore, plan: SongPlan) -> None:
    """Store a file for every planned table, with its planned lineage and arbitrary rows."""
    for table, lineage in plan.compute.items():
        if table == "stems":
            with AudioTableWriter(store, STEMS, lineage) as writer:
                writer.add(block_rows(plan.song_id, 0, ("vocals",)))
                writer.commit()
        else:
            write_error_row(store, TABLES[table], plan.song_id, plan.rejected or "none", lineage)


def test_every_requested_table_of_a_new_song_is_computed(store: ObjectStore) -> None:
    made = plan(store)
    assert (list(made.compute), dict(made.keep)) == (list(ANALYSIS_TABLES), {})
    assert (made.song_hash, made.upload_key, made.duration_s) == ("ab" * 32, "uploads/song.wav", 20.0)
    assert plan(store, ("instrument_tags",)).tables == ["instrument_tags"]


@pytest.mark.parametrize(
    ("tables", "upload", "stored_stems"),
    [
        (("decoded_waveforms",), True, False),
        (("stems",), True, False),
        (("instrument_tags",), True, False),
        (("stem_instrument_tags",), False, True),
        (("instrument_tags", "stem_instrument_tags"), True, True),
        (("stems", "stem_instrument_tags"), True, False),
        (ANALYSIS_TABLES, True, False),
    ],
)
def test_a_plan_knows_what_it_reads(
    tables: tuple[str, ...], upload: bool, stored_stems: bool, store: ObjectStore
) -> None:
    carry_out(store, plan(store, ("stems",)))
    made = plan(store, tables, reuse=False)
    assert (made.needs_upload, made.reads_stored_stems) == (upload, stored_stems)
    assert made.times_read == [upload, stored_stems].count(True)


def test_the_input_digest_of_a_table_depends_on_all_its_inputs(store: ObjectStore) -> None:
    def digests(**changes: Any) -> dict[str, str]:
        song = SONG | {"song_hash": changes.pop("song_hash", SONG["song_hash"])}
        made = plan(store, planner=replace(PLANNER, **changes), song=song)
        return {table: lineage.input_digest for table, lineage in made.compute.items()}

    def changed_by(**changes: Any) -> set[str]:
        before, after = digests(), digests(**changes)
        return {table for table in before if before[table] != after[table]}

    separator, tagger = PLANNER.separator, PLANNER.tagger
    of_separator, of_tagger = (
        {"stems", "stem_instrument_tags"},
        {"instrument_tags", "stem_instrument_tags"},
    )
    assert changed_by(song_hash="cd" * 32) == set(ANALYSIS_TABLES)
    assert changed_by(separator=replace(separator, sha256="33" * 32)) == of_separator
    assert changed_by(separator=replace(separator, params={"overlap": 0.5})) == of_separator
    assert changed_by(tagger=replace(tagger, name="other")) == of_tagger
    assert changed_by(flac_bits=24) == {"decoded_waveforms", "stems", "stem_instrument_tags"}
    assert changed_by(run_id="another run") == set()


def test_a_digest_does_not_depend_on_the_order_of_names() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})


def test_a_lineage_names_its_model(store: ObjectStore) -> None:
    made = plan(store).compute
    assert {table: lineage.model for table, lineage in made.items()} == {
        "decoded_waveforms": "",
        "stems": "separator",
        "instrument_tags": "tagger",
        "stem_instrument_tags": "tagger",
    }
    assert (made["stems"].model_sha256, made["stems"].params) == (
        "11" * 32,
        '{"flac_bits": 16, "overlap": 0.25}',
    )
    assert {lineage.run_id for lineage in made.values()} == {"run"}
    assert {table: lineage.code_version for table, lineage in made.items()} == {
        table: CODE_VERSIONS[table] for table in ANALYSIS_TABLES
    }


def test_stored_tables_are_kept_with_reuse_and_computed_again_without(store: ObjectStore) -> None:
    first = plan(store)
    carry_out(store, first)
    again = plan(store, planner=replace(PLANNER, run_id="later"))
    assert dict(again.compute) == {} and not again.needs_upload and not again.reads_stored_stems
    assert {table: file.lineage for table, file in again.keep.items()} == dict(first.compute), (
        "with the lineage of the run that made it"
    )
    assert again.tables == list(ANALYSIS_TABLES)
    assert dict(plan(store, reuse=False).keep) == {}


def test_only_missing_tables_are_computed(store: ObjectStore) -> None:
    carry_out(store, plan(store, ("decoded_waveforms", "stems")))
    made = plan(store)
    assert set(made.keep) == {"decoded_waveforms", "stems"}
    assert set(made.compute) == {"instrument_tags", "stem_instrument_tags"}
    assert made.needs_upload, "for the tags of the mixture"
    assert made.reads_stored_stems


def test_a_new_model_keeps_the_tables_that_do_not_use_it(store: ObjectStore) -> None:
    carry_out(store, plan(store))
    other = replace(PLANNER, separator=ModelIdentity("other", "44" * 32))
    assert set(plan(store, planner=other).keep) == {"decoded_waveforms", "instrument_tags"}


def test_a_table_of_another_code_version_is_not_kept(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out(store, plan(store))
    monkeypatch.setattr("bandscope_dagster.input_digests.CODE_VERSIONS", CODE_VERSIONS | {"stems": "another"})
    assert set(plan(store).compute) == {"stems"}


def test_the_digest_of_tags_of_stored_stems_depends_on_these_stems(store: ObjectStore) -> None:
    carry_out(store, plan(store, ("stems",)))
    stored = read_lineage(store, STEMS, "song")
    assert stored is not None
    together = plan(store, ("stems", "stem_instrument_tags"), reuse=False)
    # The settings may name another separator by now; and none is loaded if only tags are requested.
    for separator in (plan_module.NO_MODEL, ModelIdentity("other", "44" * 32)):
        alone = plan(store, ("stem_instrument_tags",), planner=replace(PLANNER, separator=separator))
        assert (
            alone.compute["stem_instrument_tags"].input_digest
            == together.compute["stem_instrument_tags"].input_digest
        )


def test_tags_of_new_stems_are_computed_again(store: ObjectStore) -> None:
    carry_out(store, plan(store))
    other = replace(PLANNER, separator=ModelIdentity("other", "44" * 32))
    carry_out(store, plan(store, ("stems",), planner=other))
    made = plan(store, ("stem_instrument_tags",), planner=other)
    assert set(made.compute) == {"stem_instrument_tags"} and made.reads_stored_stems


def test_tags_without_stems_cannot_be_planned(store: ObjectStore) -> None:
    with pytest.raises(CannotAnalyze, match="no stems of this song; materialize stems"):
        plan(store, ("stem_instrument_tags",))


def test_the_row_of_an_old_rejection_does_not_count_as_stems(store: ObjectStore) -> None:
    carry_out(store, plan(store, ("stems",), song=REJECTED))
    with pytest.raises(CannotAnalyze, match="no stems of this song; materialize stems"):
        plan(store, ("stem_instrument_tags",))


def test_a_rejected_song_gets_rows_with_its_error_and_nothing_is_read(store: ObjectStore) -> None:
    made = plan(store, song=REJECTED)
    assert made.rejected == "truncated: 1 of 2 s" and set(made.compute) == set(ANALYSIS_TABLES)
    assert not made.needs_upload and not made.reads_stored_stems
    assert {lineage.model for lineage in made.compute.values()} == {""}
    assert set(plan(store, ("stem_instrument_tags",), song=REJECTED).compute) == {"stem_instrument_tags"}


def test_the_rows_of_a_rejection_are_kept_until_the_error_changes(store: ObjectStore) -> None:
    carry_out(store, plan(store, song=REJECTED))
    assert not plan(store, song=REJECTED).compute
    assert not plan(store, song=REJECTED | {"error": "too_long: 2 s"}).keep
    assert not plan(store).keep, "the song is usable with other limits"


def test_a_song_without_a_row_cannot_be_analyzed(store: ObjectStore) -> None:
    with pytest.raises(CannotAnalyze, match="materialize songs first"):
        read_song(store, "song")


def test_an_unavailable_song_cannot_be_analyzed_and_a_rejected_one_can(store: ObjectStore) -> None:
    lineage = plan(store).compute["stems"]
    write_table(store, SONGS, [SONG | {"error": "unavailable: no answer"}], lineage)
    with pytest.raises(CannotAnalyze, match=r"unavailable: no answer.*materialize songs again"):
        read_song(store, "song")
    write_table(store, SONGS, [REJECTED], lineage)
    assert read_song(store, "song")["error"] == "truncated: 1 of 2 s"


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        ("unavailable: gone", True),
        ("failed: MemoryError: ", True),
        ("truncated: 1 of 2 s", False),
        (None, False),
    ],
)
def test_the_code_of_an_error_makes_it_a_failure(error: str | None, failed: bool) -> None:
    assert is_failure(error) is failed


def test_is_current_compares_inputs_and_code_and_ignores_run_and_time(store: ObjectStore) -> None:
    lineage = plan(store).compute["stems"]
    assert is_current(replace(lineage, run_id="other"), lineage)
    assert not is_current(replace(lineage, input_digest="00"), lineage)
    assert not is_current(replace(lineage, code_version="0"), lineage)
