"""A tagger on a server from end to end: settings, the graph, the tables, the commands; the same rows as in-process."""

import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from chat_completions import MODEL, Asked, ChatCompletions, Reply, chat_completions
from command_line import CommandLine
from daemon import wait_for
from instances import new_instance
from platforms import Platform, local_settings, song_bytes
from polars.testing import assert_frame_equal
from tiny_omni import DESCRIPTION, LAYERS, LIST, LOOPING, PROSE, STILL_PROSE, Answer, save_tiny_omni

from bandscope_dagster.models.inventory import Model, find_model
from bandscope_dagster.models.store import model_folder
from bandscope_dagster.orchestration.in_force import versions_of, words_in_force
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.provenance import trace
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS
from bandscope_dagster.tagging import chat_server, qwen_omni, registry, served_omni
from bandscope_dagster.tagging.options import Mode, TaggingOptions
from bandscope_dagster.tagging.prompts import load_dialogue
from bandscope_dagster.tagging.qwen_omni import QwenOmni, load_qwen_omni

TAG_TABLES = (INSTRUMENT_TAGS.name, STEM_INSTRUMENT_TAGS.name)
OTHER_ORIGIN = ("detected_at",)
WINDOW_S = 5.0
SECRET = "hunter2-do-not-print"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(chat_server, "LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(chat_server, "PATIENCE_S", 0.5)
    monkeypatch.setattr(served_omni, "START_PATIENCE_S", 0.2)
    monkeypatch.setattr(served_omni, "LOOK_PATIENCE_S", 0.2)


@pytest.fixture
def served() -> Iterator[ChatCompletions]:
    with chat_completions(lambda asked: Reply('["piano", "violin"]')) as server:
        yield server


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with new_instance() as instance:
        yield instance


def served_settings(folder: Path, server: ChatCompletions, **more: Any) -> Settings:
    common = {"tagger": "qwen2.5-omni", "tagger_url": server.url, "tag_window_s": WINDOW_S}
    return local_settings(folder, **(common | more))


def uploaded(
    settings: Settings, instance: dg.DagsterInstance, songs: int = 2, seconds: float = 12.0
) -> Platform:
    platform = Platform(settings, instance)
    platform.upload({f"{number}.wav": song_bytes(number, seconds) for number in range(songs)})
    return platform


# ---- the same answers give the same tables ----


def model_behind(engine: QwenOmni) -> Callable[[Asked], Reply]:
    """Answers by the model itself, as a server computes them: from the chat and the audio that it was sent.

    Later windows may be answered earlier.
    """
    delays = random.Random(1)

    def answer(asked: Asked) -> Reply:
        chat = [
            message
            if isinstance(message["content"], str)
            else message
            | {
                "content": [
                    {"type": "audio"} if p["type"] == "input_audio" else p for p in message["content"]
                ]
            }
            for message in asked.body["messages"]
        ]
        (text,) = engine.answers([chat], asked.window[None], asked.body["max_tokens"])
        return Reply(text, delay_s=delays.uniform(0, 0.3))

    return answer


def quantized(windows: Any) -> Any:
    """The windows with 16 bits, as a server gets them."""
    return (np.round(np.clip(windows, -1, 1) * 32767) / 32768).astype(np.float32)


CASES: dict[str, tuple[Mode, str, tuple[Answer, ...]]] = {
    "a list": ("list", "qwen2.5-omni", (LIST,)),
    "layers": ("layers", "qwen3-omni", (DESCRIPTION, LAYERS)),
    "a loop": ("list", "qwen2.5-omni", (LOOPING,)),
    "prose, then a list": ("list", "qwen2.5-omni", (PROSE, LIST)),
    "nothing but prose": ("list", "qwen2.5-omni", (PROSE, STILL_PROSE)),
    "answers that depend on the audio": ("list", "qwen2.5-omni", ()),  # random weights
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_answers_give_the_same_tables_as_in_this_process(
    case: str, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, name, answers = CASES[case]
    folder = model_folder(find_model(name), tmp_path / "models")
    model = replace(save_tiny_omni(folder, name, answers), name=name)
    known: dict[str, Model] = {name: model}
    monkeypatch.setattr(registry, "find_model", lambda name: known.get(name) or find_model(name))
    if not answers:  # a random model never stops
        asked = load_dialogue(mode)
        few = [replace(question, max_new_tokens=24) for question in (*asked.questions, asked.repair)]
        short = replace(asked, questions=tuple(few[:-1]), repair=few[-1])
        for module in (qwen_omni, served_omni):
            monkeypatch.setattr(module, "load_dialogue", lambda _: short)
    options = {"tagger": name, "tag_mode": mode, "tag_window_s": WINDOW_S}

    tag = QwenOmni.tag
    monkeypatch.setattr(QwenOmni, "tag", lambda self, windows: tag(self, quantized(windows)))
    here = uploaded(
        local_settings(tmp_path / "store", models_folder=str(tmp_path / "models"), **options),
        instance,
        songs=2 if case == "a list" else 1,
    )
    assert here.materialize().success
    found = {table: here.table(table) for table in TAG_TABLES}

    engine = load_qwen_omni(model, folder, "cpu", TaggingOptions(window_s=WINDOW_S, mode=mode))
    with chat_completions(model_behind(engine), model=model.source.repository, slow_answers=True) as server:
        there = Platform(local_settings(tmp_path / "store", tagger_url=server.url, **options), instance)
        assert there.materialize(TAG_TABLES).success
        assert server.most_in_flight > 1
    for table in TAG_TABLES:
        assert_frame_equal(there.table(table).drop(OTHER_ORIGIN), found[table].drop(OTHER_ORIGIN))
        assert found[table].height > 0
    if not answers:
        assert found[STEM_INSTRUMENT_TAGS.name]["answer"].n_unique() > 1


# ---- lineage, and what makes a result outdated ----


def test_the_lineage_of_the_tables_names_model_and_server_and_no_secret(
    tmp_path: Path, served: ChatCompletions, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    served.key = SECRET
    with caplog.at_level(logging.DEBUG):
        platform = uploaded(served_settings(tmp_path, served, tagger_key=SECRET), instance, songs=1)
        run = platform.materialize()
    assert run.success
    (song,) = platform.songs
    for table in (INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS):
        lineage = read_lineage(platform.store, table, song)
        assert lineage is not None and (lineage.model, lineage.model_sha256) == ("qwen2.5-omni", "")
        params = json.loads(lineage.params)
        assert params["served_model"] == MODEL and params["revision"] == "unknown"
        assert params["server"] == "vllm 0.32.0" and "not hashed" in params["weights"]
        assert served.url not in lineage.params
    assert [origin.remarks for origin in trace(platform.store, song).tables] == [()] * 5
    metadata = platform.events(run.run_id, INSTRUMENT_TAGS.name)[song].metadata
    assert (metadata["device"].value, metadata["batch"].value) == ("server", 64)
    assert SECRET not in caplog.text
    assert SECRET not in "".join(str(event) for event in instance.all_logs(run.run_id))
    assert SECRET not in str(words_in_force(platform.settings))


def test_tags_are_kept_for_another_address_or_version_and_made_anew_for_another_model(
    tmp_path: Path, served: ChatCompletions, instance: dg.DagsterInstance
) -> None:
    platform = uploaded(served_settings(tmp_path, served), instance, songs=1)
    assert platform.materialize().success

    def kept(server: ChatCompletions, **more: Any) -> dict[str, bool]:
        changed = Platform(served_settings(tmp_path, server, **more), instance)
        run = changed.materialize(reuse=True)
        assert run.success
        (song,) = platform.songs
        return {
            table: changed.events(run.run_id, table)[song].metadata["reused"].value for table in TAG_TABLES
        }

    with chat_completions(served.answer, version="0.33.0") as other:
        assert kept(other) == dict.fromkeys(TAG_TABLES, True)
        (song,) = platform.songs
        assert not other.questions
        upgraded = Platform(served_settings(tmp_path, other), instance)
        assert upgraded.materialize([STEM_INSTRUMENT_TAGS.name]).success
        assert [origin.remarks for origin in trace(platform.store, song).tables] == [()] * 5
    served.model = "another"
    assert kept(served, tagger_model="another") == dict.fromkeys(TAG_TABLES, False)


def test_dagster_shows_songs_as_outdated_by_model_and_revision_and_not_by_address(tmp_path: Path) -> None:
    def version(**settings: Any) -> str:
        return versions_of(local_settings(tmp_path, tagger="qwen2.5-omni", **settings))[INSTRUMENT_TAGS.name]

    here, there = version(), version(tagger_url="http://one/v1")
    assert here != there
    assert version(tagger_url="https://two:8000/v1", tagger_key="key", tagger_requests=3) == there
    assert version(tagger_url="http://one/v1", tagger_model=MODEL) == there, "the default name"
    assert version(tagger_url="http://one/v1", tagger_model="another") != there
    assert version(tagger_url="http://one/v1", tagger_revision="abc") != there


# ---- a server that is down ----


def test_songs_of_a_server_that_is_down_fail_and_are_done_by_the_next_run(
    tmp_path: Path, served: ChatCompletions, instance: dg.DagsterInstance
) -> None:
    platform = uploaded(served_settings(tmp_path, served), instance)
    served.stop()
    assert not platform.materialize().success
    assert set(platform.status("songs").values()) == {"MATERIALIZED"}
    assert set(platform.status(INSTRUMENT_TAGS.name).values()) == {"FAILED"}
    failures = platform.table("song_failures")
    assert set(failures["song_id"]) == set(platform.songs) and set(failures["reason"]) == {"failed"}
    for message in failures["message"]:
        assert served.url in message and "bandscope doctor" in message
    served.start()
    assert platform.materialize(reuse=True).success
    assert set(platform.status(INSTRUMENT_TAGS.name).values()) == {"MATERIALIZED"}
    assert list(platform.store.list("song_failures")) == []


def test_a_step_tries_again_while_the_server_is_down(
    tmp_path: Path, served: ChatCompletions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = [True]
    facts = served_omni.server_facts

    def facts_the_second_time(*arguments: Any) -> Any:
        """The server comes up between two tries of the step."""
        try:
            return facts(*arguments)
        finally:
            if down.pop() if down else False:
                served.start()

    monkeypatch.setattr(served_omni, "server_facts", facts_the_second_time)
    platform = uploaded(served_settings(tmp_path, served), instance, songs=1, seconds=4.0)
    served.stop()
    run = platform.materialize()
    assert run.success
    assert [event.step_key for event in run.all_events if event.is_step_up_for_retry] == ["analyze"]


def test_a_server_that_goes_away_in_the_middle_and_stays_away_fails_the_songs_that_it_had(
    tmp_path: Path, served: ChatCompletions, instance: dg.DagsterInstance
) -> None:
    platform = uploaded(served_settings(tmp_path, served, tagger_requests=1), instance, songs=3)

    def answer(asked: Asked) -> Reply:
        if asked.number == 12:  # the first song has nine windows, and the probe came before
            threading.Thread(target=served.stop).start()
            return Reply(delay_s=5)
        return Reply('["piano"]')

    served.answer = answer
    assert not platform.materialize().success
    done, *failed = platform.songs
    status = platform.status(INSTRUMENT_TAGS.name)
    assert status == {done: "MATERIALIZED"} | dict.fromkeys(failed, "FAILED")
    assert set(platform.table("song_failures")["song_id"]) == set(failed), (
        "a song that is done needs no server"
    )

    served.answer = lambda asked: Reply('["piano"]')
    served.start()
    before = len(served.questions)
    assert platform.materialize(reuse=True).success
    tagged = [platform.table(table).filter(pl.col("song_id").is_in(failed)) for table in TAG_TABLES]
    windows = sum(rows.select("song_id", "source", "start_s").n_unique() for rows in tagged)
    assert len(served.questions) - before == windows, "only the windows of the two songs that failed"


def test_a_refusal_ends_the_step_without_another_try(
    tmp_path: Path, served: ChatCompletions, instance: dg.DagsterInstance
) -> None:
    served.key = "right"
    platform = uploaded(served_settings(tmp_path, served, tagger_key="wrong"), instance, songs=1)
    run = platform.materialize()
    failures = [event for event in run.all_events if event.is_step_failure]
    assert len(failures) == 1 and not [event for event in run.all_events if event.is_step_up_for_retry]
    assert "BANDSCOPE_TAGGER_KEY" in str(failures[0].step_failure_data)
    assert served.asked == []


def test_a_run_that_is_stopped_does_not_wait_for_answers(
    tmp_path: Path, served: ChatCompletions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bandscope_dagster.pipeline import stop

    stopping = threading.Event()
    monkeypatch.setattr(stop, "_REQUESTED", stopping)
    served.answer = lambda asked: Reply("[]", delay_s=0.0 if asked.is_probe else 3600.0)
    platform = uploaded(served_settings(tmp_path, served), instance, songs=1)

    def ask_to_stop() -> None:
        wait_for("it is asked", lambda: served.questions, every_s=0.05)
        stopping.set()

    threading.Thread(target=ask_to_stop).start()
    began = time.monotonic()
    assert not platform.materialize().success
    assert time.monotonic() - began < 1800, "the answers come after an hour"
    assert list(platform.store.list(INSTRUMENT_TAGS.name)) == []


# ---- what such a run does not need ----

_RUN = """
import sys
sys.path[:0] = ["tests/support"]
import dagster as dg
from pathlib import Path
from platforms import ASSETS
from bandscope_dagster.orchestration.partitions import register_uploads
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.run_tags import PARTITION_TAG
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import load_settings

settings = load_settings()
with dg.DagsterInstance.ephemeral() as instance:
    (song,) = register_uploads(instance, list_uploads(settings.open_store()))
    done = dg.materialize(
        ASSETS, instance=instance, resources=resources(settings), tags={PARTITION_TAG: song},
        selection=["songs", "decoded_waveforms", "instrument_tags"],
    )
print("LOADED", done.success, sorted({"torch", "transformers", "demucs"} & set(sys.modules)))
"""


def test_a_run_of_the_tags_of_mixtures_loads_no_model_library(
    tmp_path: Path, served: ChatCompletions
) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "song.wav").write_bytes(song_bytes(1, 6.0))
    others = {name: value for name, value in os.environ.items() if not name.startswith("BANDSCOPE_")}
    settings = {"STORAGE": str(tmp_path), "TAGGER": "qwen2.5-omni", "TAGGER_URL": served.url}
    variables = {f"BANDSCOPE_{name}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        env=others | variables,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert "LOADED True []" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def bandscope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(tmp_path / "store"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def chosen(
    monkeypatch: pytest.MonkeyPatch, served: ChatCompletions, bandscope: CommandLine
) -> ChatCompletions:
    """The server as the tagger of commands."""
    monkeypatch.setenv("BANDSCOPE_TAGGER", "qwen2.5-omni")
    monkeypatch.setenv("BANDSCOPE_TAGGER_URL", served.url)
    return served


def test_doctor_examines_the_server_and_demands_no_weights(
    chosen: ChatCompletions, bandscope: CommandLine
) -> None:
    done = bandscope("doctor")
    assert done.code == 0, done.out
    assert f"{chosen.url} serves qwen2.5-omni as {MODEL} (software: vllm 0.32.0)" in done.out
    assert bandscope("models", "verify").code == 0
    chosen.stop()
    done = bandscope("doctor")
    assert done.code == 1 and "FAIL tagger" in done.out and "cannot be reached" in done.out


def test_doctor_refuses_a_server_for_a_tagger_that_needs_none(
    chosen: ChatCompletions, bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANDSCOPE_TAGGER", "musicnn")
    done = bandscope("doctor")
    assert done.code == 1 and "BANDSCOPE_TAGGER_URL has no meaning for BANDSCOPE_TAGGER='musicnn'" in done.out
