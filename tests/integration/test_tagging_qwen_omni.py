"""tagging/qwen_omni: real but tiny thinkers, in the published layout, that answer and are asked again."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_omni import (
    DESCRIPTION,
    FAMILIES,
    LAYERS,
    LIST,
    LOOPING,
    PROSE,
    STILL_PROSE,
    Answer,
    entry,
    save_tiny_omni,
)

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.inventory import Model
from bandscope_dagster.tagging.answers.parse import PARSER_VERSION
from bandscope_dagster.tagging.omni_checkpoint import OmniCheckpoint, load_checkpoint
from bandscope_dagster.tagging.options import Mode, TaggingOptions
from bandscope_dagster.tagging.prompts import Dialogue, Question, load_dialogue
from bandscope_dagster.tagging.protocol import Heard, Tag
from bandscope_dagster.tagging.qwen_omni import SAMPLE_RATE, QwenOmni, load_qwen_omni, window_plan

WINDOW_S = 2.0
OPTIONS = TaggingOptions(window_s=WINDOW_S)
LAYERED = TaggingOptions(window_s=WINDOW_S, mode="layers")
FOLDERS = count()


def noises(windows: int) -> NDArray[np.float32]:
    """Windows of different content: noise with a different spectrum and loudness in each."""
    random = np.random.default_rng(0)
    white = random.standard_normal((windows, round(WINDOW_S * SAMPLE_RATE)))
    for index, row in enumerate(white):
        white[index] = np.convolve(row, np.ones(4 * index + 1), "same") * 0.1 ** (1 + index % 2)
    return (0.5 * white / np.abs(white).max()).astype(np.float32)


def saved(tmp_path: Path, *answers: Answer, family: str = "qwen2.5-omni") -> tuple[Model, Path]:
    folder = tmp_path / f"checkpoint-{next(FOLDERS)}"
    return save_tiny_omni(folder, family, answers), folder


def tagger(
    tmp_path: Path, *answers: Answer, options: TaggingOptions = OPTIONS, family: str = "qwen2.5-omni"
) -> QwenOmni:
    return load_qwen_omni(*saved(tmp_path, *answers, family=family), "cpu", options)


def answers(tagger: QwenOmni, windows: NDArray[np.float32]) -> list[str | None]:
    return [heard.answer for heard in tagger.tag(windows)]


def short(dialogue: Dialogue, tokens: int) -> Dialogue:
    """The same questions, shortened, with answers of at most ``tokens`` tokens: a random model never stops."""

    def cut(question: Question) -> Question:
        return replace(question, text=question.text[:20], max_new_tokens=tokens)

    return replace(
        dialogue,
        system=dialogue.system[:20],
        questions=tuple(cut(question) for question in dialogue.questions),
        repair=cut(dialogue.repair),
    )


@contextmanager
def prompts_to(checkpoint: OmniCheckpoint) -> Iterator[list[torch.Tensor]]:
    """Record the tokens of every prompt that reaches a thinker, without padding."""
    masks: list[torch.Tensor] = []

    def note(_: Any, __: Any, named: dict[str, Any]) -> None:
        if named.get("input_features") is not None:
            mask = named.get("attention_mask")  # ``generate`` omits it if there is no padding
            masks.append(torch.ones_like(named["input_ids"]) if mask is None else mask)

    hook = checkpoint.thinker.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield masks
    finally:
        hook.remove()


@pytest.fixture(scope="module", params=FAMILIES)
def random_checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> OmniCheckpoint:
    folder = tmp_path_factory.mktemp("random")
    return load_checkpoint(save_tiny_omni(folder, request.param), folder, "cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_list_mode_gives_the_instruments_of_the_models_one_answer(family: str, tmp_path: Path):
    heard = tagger(tmp_path, LIST, family=family).tag(noises(3))
    tags = [Tag(label, None) for label in ("grand piano", "double bass", "female vocal")]
    assert heard == [Heard(tags, answer=LIST.text)] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_mode_asks_for_a_description_and_then_for_its_layers(family: str, tmp_path: Path):
    heard = tagger(tmp_path, DESCRIPTION, LAYERS, options=LAYERED, family=family).tag(noises(2))
    assert [{(tag.label, tag.layer, tag.score) for tag in each.tags} for each in heard] == [
        {
            ("synth pad", "background", None),
            ("piano", "middle_ground", None),
            ("vocals", "foreground", None),
        }
    ] * 2
    assert heard[0].answer == f"[description]\n{DESCRIPTION.text}\n\n[layers]\n{LAYERS.text}"
    assert heard[0].error is None


def test_the_description_is_part_of_the_conversation_when_the_layers_are_asked_for(tmp_path: Path):
    model, folder = saved(tmp_path, DESCRIPTION, LAYERS)
    checkpoint = load_checkpoint(model, folder, "cpu")
    prompts: list[str] = []
    checkpoint.thinker.register_forward_pre_hook(
        lambda _, __, arguments: (
            prompts.extend(checkpoint.processor.batch_decode(arguments["input_ids"]))
            if arguments.get("input_features") is not None
            else None
        ),
        with_kwargs=True,
    )
    dialogue = load_dialogue("layers")
    QwenOmni("tiny", checkpoint, dialogue, "cpu", LAYERED).tag(noises(1))
    first, second = prompts
    assert dialogue.system in first and dialogue.questions[0].text in first and "<|AUDIO|>" in first
    assert second.startswith(first.removesuffix("<|turn_1|>"))
    assert DESCRIPTION.text in second and dialogue.questions[1].text in second


def test_a_looping_answer_ends_and_its_repetitions_count_once(tmp_path: Path):
    (heard,) = tagger(tmp_path, LOOPING).tag(noises(1))
    assert [tag.label for tag in heard.tags] == ["piano", "drums", "electric bass"]
    assert heard.error is None
    assert heard.note is not None and "looping" in heard.note
    assert heard.answer is not None and heard.answer.count("electric bass") > 100


def test_an_answer_without_structure_is_asked_for_once_more(tmp_path: Path):
    heard = tagger(tmp_path, PROSE, LIST).tag(noises(2))
    for each in heard:
        assert [tag.label for tag in each.tags] == ["grand piano", "double bass", "female vocal"]
        assert each.error is None
        assert each.note is not None and each.note.startswith("asked again: the first answer was unparseable")
        assert each.answer == f"[list]\n{PROSE.text}\n\n[repaired answer]\n{LIST.text}"


def test_a_model_that_gives_only_prose_is_asked_twice_and_its_windows_have_an_error(tmp_path: Path):
    (heard,) = tagger(tmp_path, PROSE, STILL_PROSE, LIST).tag(noises(1))
    assert heard.tags == []
    assert heard.error is not None and heard.error.startswith("unparseable: ")
    assert heard.answer == f"[list]\n{PROSE.text}\n\n[repaired answer]\n{STILL_PROSE.text}"


def test_layers_too_are_asked_for_once_more(tmp_path: Path):
    (heard,) = tagger(tmp_path, DESCRIPTION, PROSE, LAYERS, options=LAYERED).tag(noises(1))
    assert {tag.label for tag in heard.tags} == {"synth pad", "piano", "vocals"}
    assert heard.answer is not None and [DESCRIPTION.text, PROSE.text, LAYERS.text] == [
        part.partition("]\n")[2] for part in heard.answer.split("\n\n")
    ]


def test_only_the_windows_with_an_unclear_answer_are_asked_again(random_checkpoint: OmniCheckpoint):
    dialogue = replace(short(load_dialogue("list"), 16), parse=lambda text: Heard([], text))
    windows = noises(3)
    said = answers(QwenOmni("tiny", random_checkpoint, dialogue, "cpu", OPTIONS), windows)
    assert len(set(said)) == 3

    def parse(text: str) -> Heard:
        return Heard([], text, error="unparseable: so the test wants it" if text == said[1] else None)

    with prompts_to(random_checkpoint) as masks:
        heard = QwenOmni("tiny", random_checkpoint, replace(dialogue, parse=parse), "cpu", OPTIONS).tag(
            windows
        )
    assert [len(mask) for mask in masks] == [3, 1]
    assert [heard[0].answer, heard[2].answer] == [said[0], said[2]]
    assert [each.note is None for each in heard] == [True, False, True]


@pytest.mark.parametrize("mode", ["list", "layers"])
def test_what_a_window_is_answered_depends_on_it_alone(random_checkpoint: OmniCheckpoint, mode: Mode):
    options = LAYERED if mode == "layers" else OPTIONS
    random = QwenOmni("tiny", random_checkpoint, short(load_dialogue(mode), 16), "cpu", options)
    windows = noises(3)
    with prompts_to(random_checkpoint) as masks:
        batched = answers(random, windows)
    assert len(set(batched)) == 3
    assert any(not mask.all() for mask in masks), "no prompt was shorter than another"
    assert all(mask[:, -1].all() for mask in masks), "padded on the right"
    assert [answers(random, window[None])[0] for window in windows] == batched
    order = [2, 0, 1]
    assert answers(random, windows[order]) == [batched[index] for index in order]


@pytest.mark.parametrize("mode", ["list", "layers"])
def test_the_audio_reaches_the_model_at_16_khz_in_mono(random_checkpoint: OmniCheckpoint, mode: Mode):
    features: list[torch.Tensor] = []
    hook = random_checkpoint.thinker.model.audio_tower.register_forward_pre_hook(
        lambda _, arguments, named: features.append(named.get("input_features", *arguments[:1])),
        with_kwargs=True,
    )
    options = LAYERED if mode == "layers" else OPTIONS
    random = QwenOmni("tiny", random_checkpoint, short(load_dialogue(mode), 1), "cpu", options)
    seconds = np.arange(random.plan.length) / random.plan.sample_rate
    tones = np.stack([np.sin(2 * np.pi * hertz * seconds) for hertz in (1000, 4000)]).astype(np.float32)
    random.tag(0.5 * tones)
    hook.remove()

    # Slaney's mel scale from 0 to 8 kHz (1 kHz is 15; above, 27 for each factor of 6.4), 128 bands.
    top = 15 + 27 * np.log(8) / np.log(6.4)
    expected = [15 / top * 129 - 1, (15 + 27 * np.log(4) / np.log(6.4)) / top * 129 - 1]
    frames = round(100 * WINDOW_S)  # one frame every 10 ms
    for call in features:
        assert call.shape == (128, 2 * frames)
        found = [call[:, :frames].mean(dim=1).argmax(), call[:, frames:].mean(dim=1).argmax()]
        assert np.abs(np.array(found) - expected).max() < 1
    assert len(features) == (
        3 if mode == "layers" else 2
    )  # every question is sent with the audio, the repair too


def test_what_the_model_sees_does_not_depend_on_the_silence_after_the_window(tmp_path: Path):
    """Qwen2.5's own processor pads every window to 300 s, 4.8 million samples."""
    model, folder = saved(tmp_path)
    checkpoint = load_checkpoint(model, folder, "cpu")
    seen: list[torch.Tensor] = []
    checkpoint.thinker.model.audio_tower.register_forward_pre_hook(
        lambda _, arguments, named: seen.append(named.get("input_features", *arguments[:1])), with_kwargs=True
    )
    windows = noises(1)
    for length in (windows.shape[1], windows.shape[1] - 77):
        options = TaggingOptions(window_s=length / SAMPLE_RATE)
        seen.clear()
        QwenOmni("tiny", checkpoint, short(load_dialogue("list"), 1), "cpu", options).tag(windows[:, :length])
        processor: Any = checkpoint.processor
        stock = processor.feature_extractor(
            windows[0, :length],
            sampling_rate=SAMPLE_RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        frames = int(stock["attention_mask"].sum())
        assert stock["input_features"].shape[2] == 30_000
        assert torch.equal(seen[0], stock["input_features"][0, :, :frames])


@pytest.mark.parametrize(
    "windows",
    [
        np.zeros((2, 2 * round(WINDOW_S * SAMPLE_RATE)), np.float32),
        np.zeros((1, 2, round(WINDOW_S * SAMPLE_RATE)), np.float32),
        np.zeros(round(WINDOW_S * SAMPLE_RATE), np.float32),
        np.zeros((2, round(WINDOW_S * SAMPLE_RATE)), np.float64),
        np.zeros((2, round(WINDOW_S * SAMPLE_RATE)), np.int16),
    ],
    ids=["too long", "stereo", "no batch", "float64", "int16"],
)
def test_windows_of_another_form_are_an_error_that_says_what_is_taken(
    random_checkpoint: OmniCheckpoint, windows: NDArray[Any]
):
    random = QwenOmni("tiny", random_checkpoint, load_dialogue("list"), "cpu", OPTIONS)
    with pytest.raises(
        ValueError, match=r"tiny takes float32 windows of shape \(batch, 32000\), mono at 16000 Hz"
    ):
        random.tag(windows)


def test_logits_that_are_not_finite_are_an_error(tmp_path: Path):
    model, folder = saved(tmp_path, LIST)
    checkpoint = load_checkpoint(model, folder, "cpu")
    checkpoint.thinker.lm_head.weight[5] = torch.nan
    broken = QwenOmni("tiny", checkpoint, load_dialogue("list"), "cpu", OPTIONS)
    with pytest.raises(RuntimeError, match="tiny computed logits that are not finite"):
        broken.tag(noises(1))


def test_tokens_that_the_tokenizer_does_not_know_are_never_said(tmp_path: Path):
    model, folder = saved(tmp_path, LIST)
    checkpoint = load_checkpoint(model, folder, "cpu")
    checkpoint.thinker.lm_head.weight[-1] = 100  # the most likely one after every token
    (heard,) = QwenOmni("tiny", checkpoint, load_dialogue("list"), "cpu", OPTIONS).tag(noises(1))
    assert heard.answer == LIST.text


def test_the_checkpoints_own_way_of_sampling_neither_acts_nor_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
):
    model, folder = saved(tmp_path, LOOPING)
    assert '"do_sample": true' in (folder / "generation_config.json").read_text()
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        loops = load_qwen_omni(model, folder, "cpu", OPTIONS)
        assert answers(loops, noises(1)) == answers(loops, noises(1))
    finally:
        logger.removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.records] + [str(each.message) for each in recwarn]
    sampling = ("sample", "temperature", "top_k", "top_p", "ngram", "generation")
    assert [message for message in said if any(word in message for word in sampling)] == []


def plan_s(window_s: float | None = None, hop_s: float | None = None) -> tuple[float, float]:
    plan = window_plan("tiny", TaggingOptions(window_s=window_s, hop_s=hop_s))
    assert (plan.sample_rate, plan.lead) == (16_000, 0)
    return plan.length / plan.sample_rate, plan.hop / plan.sample_rate


def test_windows_are_30_s_long_and_do_not_overlap_unless_they_are_set_to():
    assert plan_s() == (30, 30)
    assert plan_s(window_s=10) == (10, 10)
    assert plan_s(window_s=300, hop_s=12.5) == (300, 12.5)
    assert plan_s(window_s=1) == (1, 1)


@pytest.mark.parametrize(
    ("window_s", "hop_s", "message"),
    [
        (0.5, None, "BANDSCOPE_TAG_WINDOW_S=0.5 does not fit tiny: it must be from 1 to 300 s"),
        (301, None, "BANDSCOPE_TAG_WINDOW_S=301 does not fit tiny"),
        (10, 10.5, "BANDSCOPE_TAG_HOP_S=10.5 does not fit tiny: it must be above 0 and at most the 10 s"),
        (None, 0, "BANDSCOPE_TAG_HOP_S=0 does not fit tiny"),
        (None, -1, "BANDSCOPE_TAG_HOP_S=-1 does not fit tiny"),
    ],
)
def test_windows_that_the_model_cannot_hear_are_refused_before_anything_is_read(
    tmp_path: Path, window_s: float | None, hop_s: float | None, message: str
):
    with pytest.raises(SettingsError, match=message):
        load_qwen_omni(
            entry(tmp_path, "tiny"), tmp_path, "cpu", TaggingOptions(window_s=window_s, hop_s=hop_s)
        )


def test_the_identity_says_all_that_an_answer_depends_on(tmp_path: Path):
    model, folder = saved(tmp_path, LIST)

    def params(**options: Any) -> dict[str, Any]:
        identity = load_qwen_omni(model, folder, "cpu", TaggingOptions(**options)).identity
        assert identity.name == model.name and len(identity.sha256) == 64
        return identity.params

    assert params() == {
        "sample_rate": 16_000,
        "window_frames": 480_000,
        "window_hop": 480_000,
        "mode": "list",
        "parser": PARSER_VERSION,
        "prompts_sha256": load_dialogue("list").sha256,
        "max_new_tokens": [256, 256],
        "precision": "float32",
    }
    layers = params(mode="layers", window_s=10, hop_s=5, batch=3)
    assert (layers["mode"], layers["window_frames"], layers["window_hop"]) == ("layers", 160_000, 80_000)
    assert layers["prompts_sha256"] == load_dialogue("layers").sha256
    assert layers["max_new_tokens"] == [256, 512, 512]
    assert params(batch=3) == params(batch=1)


def test_the_batch_is_one_window_on_a_cpu_unless_it_is_set(random_checkpoint: OmniCheckpoint):
    def batch(options: TaggingOptions) -> int:
        return QwenOmni("tiny", random_checkpoint, load_dialogue("list"), "cpu", options).batch

    assert batch(TaggingOptions()) == 1
    assert batch(TaggingOptions(batch=5)) == 5
