"""Every tagger from end to end: from weights in a folder, through the model store and the graph, to Parquet."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from instances import new_instance
from platforms import Platform, local_settings, song_bytes
from tiny_ast import INSTRUMENTS, save_tiny_ast
from tiny_omni import LIST, PROSE, STILL_PROSE, Answer, save_tiny_omni

from bandscope_dagster.models.inventory import Model, find_model
from bandscope_dagster.models.provision import add
from bandscope_dagster.models.store import inspect, model_folder
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import TABLES
from bandscope_dagster.tagging import qwen_omni, registry
from bandscope_dagster.tagging.instruments_network import CLASSES
from bandscope_dagster.tagging.prompts import load_dialogue
from bandscope_dagster.tagging.vocabulary import load_vocabulary

TAG_TABLES = ("instrument_tags", "stem_instrument_tags")
STEMS = {"vocals", "accompaniment"}  # of the embedded separator
HELD = ("song_id", "source", "label", "score", "start_s", "end_s", "layer", "answer", "error")

Choose = Callable[..., Settings]


@pytest.fixture
def choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Add a tiny model to the model store, as an offline user does, and select it as the tagger."""
    listed: dict[str, Model] = {}
    monkeypatch.setattr(registry, "find_model", lambda name: listed.get(name) or find_model(name))

    def put(tagger: str, save: Callable[[Path], Model], **settings: object) -> Settings:
        downloaded, models = tmp_path / f"downloaded-{tagger}", tmp_path / "models"
        listed[tagger] = model = replace(save(downloaded), name=tagger)
        assert {placed.how for placed in add(model, [downloaded], models)} == {"copied"}
        folder = model_folder(model, models)
        assert all(inspect(model, file, folder).state == "present" for file in model.files)
        return local_settings(
            tmp_path / f"store-{len(list(tmp_path.iterdir()))}",
            tagger=tagger,
            models_folder=str(models),
            **settings,
        )

    return put


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with new_instance() as instance:
        yield instance


def omni(tagger: str, *answers: Answer) -> Callable[[Path], Model]:
    return lambda folder: save_tiny_omni(folder, tagger, answers)


def analyzed(
    settings: Settings, instance: dg.DagsterInstance, songs: int = 2, seconds: float = 12.0
) -> tuple[Platform, str]:
    """A platform of short songs after one run over all tables, and the run's id."""
    platform = Platform(settings, instance)
    platform.upload({f"{number}.wav": song_bytes(number, seconds) for number in range(songs)})
    run = platform.materialize()
    assert run.success
    return platform, run.run_id


@pytest.mark.parametrize("batch", [1, 4])
def test_ast_tags_mixture_and_stems(choose: Choose, instance: dg.DagsterInstance, batch: int) -> None:
    platform, run = analyzed(choose("ast", save_tiny_ast, tag_batch=batch), instance)
    assert set(platform.table("instrument_tags")["source"]) == {"mixture"}
    assert set(platform.table("stem_instrument_tags")["source"]) == STEMS
    for table in TAG_TABLES:
        rows = platform.table(table)
        assert set(rows["label"]) == set(INSTRUMENTS)
        assert rows["score"].is_between(0, 1).all()
        assert set(rows.select("start_s", "end_s").rows()) == {(0.0, 10.24), (1.76, 12.0)}
        assert rows["model"].unique().to_list() == ["ast"]
        for event in platform.events(run, table).values():
            assert event.metadata["batch"].value == batch
    assert set(platform.checks(run, "tags_are_complete").values()) == {(True, "WARN")}


def test_scores_of_ast_do_not_depend_on_the_batch(choose: Choose, instance: dg.DagsterInstance) -> None:
    alone = choose("ast", save_tiny_ast, tag_batch=1)
    platform, _ = analyzed(alone, instance)
    found = {table: platform.table(table).select(HELD) for table in TAG_TABLES}
    shared = Platform(alone.model_copy(update={"tag_batch": 5}), instance)
    assert shared.materialize(TAG_TABLES).success
    for table, expected in found.items():
        rows = shared.table(table).select(HELD)
        assert rows.drop("score").equals(expected.drop("score"))
        assert (rows["score"] - expected["score"]).abs().max() < 1e-5


@pytest.mark.parametrize("tagger", ["qwen2.5-omni", "qwen3-omni"])
def test_qwen_omni_names_instruments_and_its_answers_are_kept(
    choose: Choose, instance: dg.DagsterInstance, tagger: str
) -> None:
    settings = choose(tagger, omni(tagger, LIST), tag_window_s=5.0, tag_batch=4)
    platform, run = analyzed(settings, instance)
    expected = {load_vocabulary().match(label).instrument for label in json.loads(LIST.text)}
    for table in TAG_TABLES:
        rows = platform.table(table)
        assert set(rows["instrument"]) == expected
        assert rows["mapped"].all() and rows["score"].is_null().all() and rows["error"].is_null().all()
        assert rows["answer"].unique().to_list() == [LIST.text]
        assert set(rows["start_s"]) == {0.0, 5.0, 7.0}
    assert set(platform.checks(run, "tags_are_complete").values()) == {(True, "WARN")}
    platform.materialize_catalogs()
    catalog = pl.read_parquet(platform.store.uri("instrument_catalog/instrument_catalog.parquet"))
    for (interval,) in catalog.filter(source="mixture")["intervals"].to_list():
        assert interval == {"start_s": 0.0, "end_s": 12.0, "score": None}


@pytest.mark.parametrize("tagger", ["qwen2.5-omni", "qwen3-omni"])
def test_answers_of_qwen_omni_do_not_depend_on_the_batch(
    choose: Choose, instance: dg.DagsterInstance, tagger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = load_dialogue("list")
    short = tuple(replace(question, max_new_tokens=24) for question in (*asked.questions, asked.repair))
    monkeypatch.setattr(
        qwen_omni, "load_dialogue", lambda _: replace(asked, questions=short[:1], repair=short[1])
    )
    alone = choose(
        tagger, omni(tagger), tag_window_s=3.0, tag_batch=1
    )  # random weights: the answers depend on the audio, and make no sense
    platform, _ = analyzed(alone, instance, songs=1)
    found = platform.table("stem_instrument_tags").select(HELD)
    assert found["answer"].n_unique() > 1, "what it says depends on what it hears"
    shared = Platform(alone.model_copy(update={"tag_batch": 3}), instance)
    assert shared.materialize(["stem_instrument_tags"]).success
    assert shared.table("stem_instrument_tags").select(HELD).equals(found)


def test_an_unreadable_answer_is_an_error_of_its_window_and_fails_the_check(
    choose: Choose, instance: dg.DagsterInstance
) -> None:
    settings = choose("qwen2.5-omni", omni("qwen2.5-omni", PROSE, STILL_PROSE), tag_window_s=6.0)
    platform, run = analyzed(settings, instance, songs=1)
    rows = platform.table("instrument_tags")
    assert rows["error"].str.starts_with("unparseable: ").all()
    assert rows["instrument"].is_null().all()
    assert all(PROSE.text in answer and STILL_PROSE.text in answer for answer in rows["answer"])
    assert rows.select("start_s", "end_s").rows() == [(0.0, 6.0), (6.0, 12.0)]
    assert set(platform.checks(run, "tags_are_complete").values()) == {(False, "WARN")}
    platform.materialize_catalogs()
    (song,) = pl.read_parquet(platform.store.uri("song_catalog/song_catalog.parquet")).to_dicts()
    assert song["status"] == "partial"
    errors = pl.read_parquet(platform.store.uri("song_errors/song_errors.parquet"))
    assert set(errors["tables"].explode()) == set(TAG_TABLES) and errors["reason"].to_list() == [
        "unparseable"
    ]


def test_another_tagger_makes_the_tag_tables_outdated_and_nothing_else(
    choose: Choose, instance: dg.DagsterInstance
) -> None:
    platform, _ = analyzed(choose("ast", save_tiny_ast), instance, songs=1)
    assert_only_tags_are_outdated(platform, "musicnn")


def test_the_default_tagger_makes_the_tags_of_musicnn_outdated_and_nothing_else(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    settings = local_settings(tmp_path, tagger="musicnn")
    platform, _ = analyzed(settings, instance, songs=1)
    assert_only_tags_are_outdated(platform, local_settings(tmp_path).tagger)
    assert set(platform.table("instrument_tags")["model"]) == {"bandscope-instruments"}
    assert set(platform.table("instrument_tags")["label"]) <= set(CLASSES)


def assert_only_tags_are_outdated(platform: Platform, tagger: str) -> None:
    """After a run with ``tagger``, which keeps what is current, all tables but those of tags are kept."""
    instance = platform.instance
    (song,) = platform.songs

    def digests(of: Platform) -> dict[str, str]:
        lineages = {table: read_lineage(of.store, TABLES[table], song) for table in ANALYSIS_TABLES}
        return {table: lineage.input_digest for table, lineage in lineages.items() if lineage}

    before = digests(platform)
    assert set(before) == set(ANALYSIS_TABLES)
    changed = Platform(platform.settings.model_copy(update={"tagger": tagger}), instance)
    run = changed.materialize(reuse=True)
    assert run.success
    reused = {
        table: changed.events(run.run_id, table)[song].metadata["reused"].value for table in ANALYSIS_TABLES
    }
    assert reused == {table: table not in TAG_TABLES for table in ANALYSIS_TABLES}
    after = digests(changed)
    assert {table for table in ANALYSIS_TABLES if after[table] != before[table]} == set(TAG_TABLES)


def test_weights_that_were_changed_are_not_loaded_and_no_audio_is_read(
    choose: Choose, instance: dg.DagsterInstance
) -> None:
    settings = choose("qwen2.5-omni", omni("qwen2.5-omni", LIST))
    shards = sorted((settings.models_path / "qwen2.5-omni").glob("*.safetensors"))
    assert len(shards) > 1
    content = bytearray(shards[-1].read_bytes())
    content[-1] ^= 1
    shards[-1].write_bytes(content)
    platform = Platform(settings, instance)
    platform.upload({"a.wav": song_bytes(0)})
    run = platform.materialize()
    assert not run.success
    failures = [event for event in run.all_events if event.is_step_failure]
    assert shards[-1].name in str(failures[0].step_failure_data)
    assert "bandscope models pull qwen2.5-omni" in str(failures[0].step_failure_data)
    assert not [found for table in TAG_TABLES for found in platform.store.list(table)]
