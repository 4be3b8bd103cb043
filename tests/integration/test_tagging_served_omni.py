"""tagging/served_omni: the questions to a server, its facts, and many windows at once."""

import logging
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from chat_completions import MODEL, Asked, ChatCompletions, Reply, chat_completions, refusal
from daemon import wait_for
from long_forms import quick_or_long
from numpy.typing import NDArray

from bandscope_dagster.errors import ServerRefused, ServerUnavailable, SettingsError
from bandscope_dagster.input_digests import of_mixture_tags
from bandscope_dagster.tagging import chat_server, served_omni
from bandscope_dagster.tagging.answers.parse import PARSER_VERSION
from bandscope_dagster.tagging.options import ServerOptions, TaggingOptions
from bandscope_dagster.tagging.prompts import LAYERS_SCHEMA, LIST_SCHEMA, load_dialogue
from bandscope_dagster.tagging.protocol import ON_A_SERVER, Heard, RemoteTagger, Tag
from bandscope_dagster.tagging.served_omni import NOT_HASHED, ServedOmni, load_served_omni
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.window_flow import WindowFlow

RATE = 16_000
WINDOW_S = 1.0
SHORT = TaggingOptions(window_s=WINDOW_S)
LAYERED = TaggingOptions(window_s=WINDOW_S, mode="layers")
PROSE = "I am sorry, but I cannot listen to this."


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(chat_server, "LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(chat_server, "PATIENCE_S", 5.0)
    monkeypatch.setattr(served_omni, "START_PATIENCE_S", 0.3)


@pytest.fixture
def served() -> Iterator[ChatCompletions]:
    with chat_completions() as server:
        yield server


def tagger(server: ChatCompletions, options: TaggingOptions = SHORT, **more: Any) -> ServedOmni:
    options_of_server = ServerOptions(server.url, **more)
    return load_served_omni("qwen2.5-omni", more.get("model") or MODEL, options_of_server, options)


def answers(here: ServedOmni, windows: NDArray[np.float32]) -> list[Heard]:
    return [asked.result() for asked in [here.ask(window) for window in windows]]


def noises(windows: int) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    return random.uniform(-1, 1, (windows, round(WINDOW_S * RATE))).astype(np.float32)


def test_a_window_is_asked_with_the_same_words_as_in_this_process_greedily(served: ChatCompletions) -> None:
    served.answer = lambda asked: Reply('["piano", "drums"]')
    (window,) = noises(1)
    (heard,) = answers(tagger(served), window[None])
    assert heard.tags == [Tag("piano", None), Tag("drums", None)] and heard.error is None
    (asked,) = served.questions
    dialogue = load_dialogue("list")
    assert asked.body["messages"][0] == {"role": "system", "content": dialogue.system}
    assert asked.questions == [dialogue.questions[0].text]
    assert np.abs(asked.window - window).max() < 1.5 / 2**15
    assert (asked.body["model"], asked.body["temperature"]) == (MODEL, 0)
    assert asked.body["max_tokens"] == dialogue.questions[0].max_new_tokens
    assert asked.body["response_format"]["json_schema"]["schema"] == LIST_SCHEMA


def test_samples_beyond_full_scale_are_clipped_and_do_not_wrap(served: ChatCompletions) -> None:
    loud = np.full((1, RATE), 1.5, np.float32)
    loud[0, ::2] = -1.5
    answers(tagger(served), loud)
    (asked,) = served.questions
    assert asked.window[1] > 0.99 and asked.window[0] < -0.99


def test_in_layers_mode_the_second_question_continues_the_chat(served: ChatCompletions) -> None:
    layers = '{"background": ["pad"], "middle_ground": [], "foreground": ["voice"]}'
    served.answer = lambda asked: Reply(layers if len(asked.questions) == 2 else "A pad behind a voice.")
    (heard,) = answers(tagger(served, LAYERED), noises(1))
    assert heard.answer == f"[description]\nA pad behind a voice.\n\n[layers]\n{layers}"
    assert {(tag.label, tag.layer) for tag in heard.tags} == {("pad", "background"), ("voice", "foreground")}
    first, second = served.questions
    assert [message["role"] for message in second.body["messages"]] == ["system", "user", "assistant", "user"]
    assert second.body["messages"][:2] == first.body["messages"], "the audio is sent again"
    assert "response_format" not in first.body
    assert second.body["response_format"]["json_schema"]["schema"] == LAYERS_SCHEMA
    asked = load_dialogue("layers").questions
    assert [each.body["max_tokens"] for each in (first, second)] == [each.max_new_tokens for each in asked]


def test_an_unreadable_answer_is_asked_for_once_more_and_then_an_error_of_its_window(
    served: ChatCompletions,
) -> None:
    windows = noises(3)
    heard_at = {0: ['["piano"]'], 1: [PROSE, '["drums"]'], 2: [PROSE, PROSE]}

    def answer(asked: Asked) -> Reply:
        (window,) = [n for n in heard_at if np.abs(asked.window - windows[n]).max() < 1e-3]
        return Reply(heard_at[window][len(asked.questions) - 1])

    here = tagger(served)
    served.answer = answer
    first, second, third = answers(here, windows)
    assert [tag.label for tag in first.tags] == ["piano"] and first.note is None
    assert [tag.label for tag in second.tags] == ["drums"]
    assert second.note is not None and second.note.startswith("asked again: the first answer was unparseable")
    assert third.tags == [] and third.error is not None and third.error.startswith("unparseable: ")
    assert third.answer == f"[list]\n{PROSE}\n\n[repaired answer]\n{PROSE}"
    assert len(served.questions) == 5


def test_looping_text_is_cut_by_the_limit_of_tokens_and_its_repetitions_count_once(
    served: ChatCompletions,
) -> None:
    served.answer = lambda asked: Reply('["piano"' + ', "drums", "bass"' * 40)
    (heard,) = answers(tagger(served), noises(1))
    assert [tag.label for tag in heard.tags] == ["piano", "drums", "bass"] and heard.error is None
    assert heard.note is not None and "looping" in heard.note


def test_an_answer_without_an_end_is_an_error_of_its_window_alone(served: ChatCompletions) -> None:
    here = tagger(served)
    first = served.asked[-1].number + 1
    served.answer = lambda asked: (
        Reply(body=b"la " * 5000, endless=True) if asked.number == first else Reply('["piano"]')
    )
    heard = answers(here, noises(2))
    assert sorted(each.error or "" for each in heard) == [
        "",
        "unparseable: the server sent more than 65,536 bytes in one answer",
    ]


def test_a_server_without_schemas_is_asked_without_and_the_log_says_so_once(
    served: ChatCompletions, caplog: pytest.LogCaptureFixture
) -> None:
    served.takes_schemas = False
    with caplog.at_level(logging.WARNING):
        here = tagger(served)
    assert [record.message.rpartition("; ")[2] for record in caplog.records] == [
        "the same request will be refused again. Going on without a schema for the answers."
    ]
    answers(here, noises(4))
    assert all("response_format" not in asked.body for asked in served.questions)
    assert len(served.questions) == 4 and here.identity.params["structured"] is False


def test_a_server_is_asked_once_if_it_takes_schemas_and_again_if_it_changes(served: ChatCompletions) -> None:
    def probes() -> int:
        return len(served.asked) - len(served.questions)

    here = [tagger(served), tagger(served)][-1]
    assert probes() == 1 and here.identity.params["structured"] is True
    tagger(served, LAYERED)
    assert probes() == 2, "another question"
    served.version = "0.33.0"
    here = tagger(served)
    assert probes() == 3, "another version"
    served.answer = lambda asked: refusal(400, "no schemas") if not asked.is_probe else Reply()
    with pytest.raises(ServerRefused):
        answers(here, noises(1))
    served.takes_schemas = False  # with the same version
    assert tagger(served).identity.params["structured"] is False


@pytest.mark.parametrize("status", [403, 413, 418])
def test_another_refusal_of_the_first_question_is_not_one_of_the_schema(
    status: int, served: ChatCompletions
) -> None:
    served.answer = lambda asked: refusal(status, "not now") if asked.number == 0 else Reply()
    with pytest.raises(SettingsError, match=f"status {status}"):
        tagger(served)
    assert len(served.asked) == 1


def test_answers_with_and_without_a_schema_are_equally_current(served: ChatCompletions) -> None:
    held = tagger(served).identity
    served.takes_schemas, served.version = False, "without schemas"
    free = tagger(served).identity
    assert (held.params["structured"], free.params["structured"]) == (True, False)
    assert of_mixture_tags("ab", held) == of_mixture_tags("ab", free)


def test_a_server_that_starts_is_waited_for(served: ChatCompletions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_omni, "START_PATIENCE_S", 60.0)
    served.stop()
    threading.Timer(0.7, served.start).start()
    assert answers(tagger(served), noises(1))[0].error is None


def test_a_load_of_a_tagger_ends_if_the_run_is_stopped(
    served: ChatCompletions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_omni, "START_PATIENCE_S", 60.0)
    served.answer = lambda asked: Reply(delay_s=60)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        load_served_omni("qwen2.5-omni", MODEL, ServerOptions(served.url), SHORT, lambda: bool(served.asked))
    assert time.monotonic() - began < 30


def test_statements_of_the_server_are_kept_short(served: ChatCompletions) -> None:
    served.version = "9" * 10_000 + "\ud800"
    assert len(tagger(served).identity.params["server"]) <= 2 * served_omni.FACT + 1
    served.model = "m" * 10_000
    with pytest.raises(SettingsError) as refused:
        tagger(served)
    assert len(str(refused.value)) < 600


def test_a_server_that_refuses_audio_is_an_error_before_any_song(served: ChatCompletions) -> None:
    served.answer = lambda asked: refusal(400, "At most 0 audio(s) may be provided in one prompt.")
    with pytest.raises(SettingsError, match="At most 0 audio"):
        tagger(served)
    assert served.questions == []


def test_a_window_that_is_too_long_for_the_server_is_an_error_before_any_song(
    served: ChatCompletions,
) -> None:
    limit_s = 5.0  # vLLM 0.32.0 gives this answer to audio of more tokens than --max-model-len

    def answer(asked: Asked) -> Reply:
        if len(asked.window) <= limit_s * RATE:
            return Reply()
        return refusal(400, "Input length (5932) exceeds model's maximum context length (4096).")

    served.answer = answer
    tagger(served, TaggingOptions(window_s=limit_s))
    with pytest.raises(SettingsError, match="exceeds model's maximum context length"):
        tagger(served, TaggingOptions(window_s=limit_s + 1))
    assert served.questions == []


def test_a_model_that_is_not_served_is_an_error_that_names_those_that_are(served: ChatCompletions) -> None:
    served.model = "my-qwen"
    with pytest.raises(
        SettingsError, match=rf"does not serve '{MODEL}', only my-qwen.*BANDSCOPE_TAGGER_MODEL"
    ):
        tagger(served)
    answers(tagger(served, model="my-qwen"), noises(1))
    assert served.questions[0].body["model"] == "my-qwen"


def test_a_wrong_key_is_one_error_before_any_song(served: ChatCompletions) -> None:
    served.key = "right"
    with pytest.raises(SettingsError, match=r"Unauthorized.*BANDSCOPE_TAGGER_KEY"):
        tagger(served, key="wrong")
    assert served.asked == []
    answers(tagger(served, key="right"), noises(1))


def test_a_server_that_is_down_may_be_back_later(served: ChatCompletions) -> None:
    served.stop()
    with pytest.raises(ServerUnavailable, match="cannot be reached"):
        tagger(served)
    served.start()
    assert answers(tagger(served), noises(1))[0].error is None


def test_a_refusal_of_one_window_is_an_error_of_its_source_alone(served: ChatCompletions) -> None:
    here = tagger(served)
    number = served.asked[-1].number + 1
    served.answer = lambda asked: refusal(400, "too loud") if asked.number == number else Reply('["piano"]')
    flow = WindowFlow(here)
    sources = [SourceTags(name, here, RATE) for name in ("vocals", "drums")]
    for source, window in zip(sources, noises(2), strict=True):
        flow.add(source, source.push(window[None]) + source.finish())
    while flow.collect(wait=True):
        pass
    failed = [source for source in sources if source.error is not None]
    assert len(failed) == 1 and isinstance(failed[0].error, ServerRefused)
    assert len(served.questions) == 2, "a refusal is not tried again"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TaggingOptions(batch=4), "BANDSCOPE_TAG_BATCH=4.*BANDSCOPE_TAGGER_REQUESTS"),
        (TaggingOptions(window_s=0.5), "BANDSCOPE_TAG_WINDOW_S=0.5 does not fit"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_server_is_asked(
    served: ChatCompletions, options: TaggingOptions, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        tagger(served, options)
    assert served.gets == []


def test_the_lineage_says_what_the_server_says_and_that_no_weights_were_hashed(
    served: ChatCompletions,
) -> None:
    here = tagger(served, requests=7)
    assert isinstance(here, RemoteTagger)
    assert (here.device, here.batch) == (ON_A_SERVER, 7)
    assert here.identity.name == "qwen2.5-omni" and here.identity.sha256 == ""
    assert here.identity.params == {
        "sample_rate": RATE,
        "window_frames": RATE,
        "window_hop": RATE,
        "mode": "list",
        "parser": PARSER_VERSION,
        "prompts_sha256": load_dialogue("list").sha256,
        "max_new_tokens": [256, 256],
        "temperature": 0,
        "structured": True,
        "served_model": MODEL,
        "revision": "unknown",
        "weights": NOT_HASHED,
        "server": "vllm 0.32.0",
    }
    served.version = None
    assert tagger(served, revision="abc").identity.params | {"server": "vllm", "revision": "abc"} == (
        tagger(served, revision="abc").identity.params
    )


def test_another_address_or_version_makes_nothing_outdated_and_another_model_does(
    served: ChatCompletions,
) -> None:
    def digest(server: ChatCompletions, **more: Any) -> str:
        return of_mixture_tags("ab", tagger(server, **more).identity)

    with chat_completions(version="0.33.0", key="key") as other:
        before = digest(served)
        assert digest(other, key="key", requests=3, timeout_s=5.0) == before
        assert digest(served, revision="abc") != before
    served.model = "another"
    assert digest(served, model="another") != before


QUIETEST = 1000  # of 32767; softer windows count as silent


def numbered(number: int) -> NDArray[np.float32]:
    """A window whose level is a number, ``(1, frames)``."""
    return np.full((1, RATE), (QUIETEST + number) / 32767, np.float32)


def number_of(asked: Asked) -> int:
    """The number of the window in a request."""
    return round(float(asked.window[0]) * 32768) - QUIETEST


WINDOWS = quick_or_long(1000, long=10_000)
AT_ONCE = 64


def test_a_thousand_windows_of_many_songs_keep_all_places_taken_and_get_their_own_answers(
    served: ChatCompletions,
) -> None:
    """The first window is answered once nearly all others were asked: a batch that waits for its slowest would never
    end. The others are answered from the moment when all places are taken, in any order."""
    here = tagger(served, requests=AT_ONCE)
    served.keeps_bodies = False
    delays = random.Random(3)

    def answer(asked: Asked) -> Reply:
        number = number_of(asked)
        text = f'["instrument {number}"]'
        if number == 0:
            return Reply(text, until=lambda: len(served.asked) > WINDOWS - AT_ONCE)
        return Reply(text, delays.uniform(0, 0.05), until=lambda: served.most_in_flight == AT_ONCE)

    served.answer = answer
    flow = WindowFlow(here)
    songs = [SourceTags("mixture", here, RATE) for _ in range(WINDOWS // 50)]
    for first, song in enumerate(songs):
        for window in range(50):
            flow.add(song, song.push(numbered(50 * first + window)))
            flow.collect(wait=False)
        flow.add(song, song.finish())
    while flow.collect(wait=True):
        pass

    for first, song in enumerate(songs):
        assert song.error is None and song.waiting == 0
        found = sorted((each.start_frame, [tag.label for tag in each.heard.tags]) for each in song.tagged)
        assert [start for start, _ in found] == [RATE * n for n in range(50)]
        assert [label for _, label in found] == [[f"instrument {50 * first + n}"] for n in range(50)]
    assert len(served.questions) == WINDOWS, "every window is asked once"
    assert served.most_in_flight == AT_ONCE


def test_nothing_is_lost_or_doubled_if_the_server_goes_away_and_comes_back(served: ChatCompletions) -> None:
    here = tagger(served, requests=16)
    delays = random.Random(3)
    goes_on = threading.Event()
    goes_on.set()

    def answer(asked: Asked) -> Reply:
        text = f'["instrument {number_of(asked)}"]'
        return Reply(text, delay_s=delays.uniform(0.05, 0.15), until=goes_on.is_set)

    served.answer = answer
    flow, song = WindowFlow(here), SourceTags("mixture", here, RATE)
    for number in range(200):
        if number in (24, 104):
            while flow.collect(wait=True):
                pass
            goes_on.clear()
        flow.add(song, song.push(numbered(number)))
        flow.collect(wait=False)
        if number in (40, 41, 120):
            wait_for("many are asked", lambda: served.in_flight >= 8, every_s=0.01)
            served.stop()
            served.start()
        if number in (41, 120):
            goes_on.set()
    flow.add(song, song.finish())
    while flow.collect(wait=True):
        pass
    assert song.error is None
    found = sorted((each.start_frame, [tag.label for tag in each.heard.tags]) for each in song.tagged)
    assert found == [(RATE * n, [f"instrument {n}"]) for n in range(200)]
    assert len(served.questions) > 200, "the connections were not broken"
