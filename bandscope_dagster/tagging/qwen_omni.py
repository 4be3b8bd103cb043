"""Qwen2.5-Omni and Qwen3-Omni as taggers: language models that listen to a window and answer in words.

``prompts`` has the questions; all windows of a call are asked at once. Decoding is greedy, so that a window always
gets the same answer, whichever windows share its call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.models.inventory import Model
from bandscope_dagster.tagging.answers.parse import PARSER_VERSION
from bandscope_dagster.tagging.conversation import Conversation
from bandscope_dagster.tagging.omni_checkpoint import STOP_TOKENS, OmniCheckpoint, load_checkpoint
from bandscope_dagster.tagging.options import TaggingOptions
from bandscope_dagster.tagging.prompts import Dialogue, load_dialogue
from bandscope_dagster.tagging.protocol import Heard, WindowPlan

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE: Final = 16_000  # Hz; both models' preprocessor_config.json
WINDOW_S: Final = 30.0  # long enough to contain instruments that take turns
SHORTEST_WINDOW_S: Final = 1.0
LONGEST_WINDOW_S: Final = 300.0  # the limit of both models' feature extractors

CPU_BATCH: Final = 1  # windows
ACCELERATOR_BATCH: Final = 8  # windows


def load_qwen_omni(model: Model, folder: Path, device: str, options: TaggingOptions) -> QwenOmni:
    """A model of the inventory with its files in ``folder``, on ``device``, a device name of torch.

    Raises:
        ModelFileError: a file is missing, is not the one in the inventory, or is of another kind of model.
        SettingsError: the options do not fit the model.
    """
    window_plan(model.name, options)  # checks the options before gigabytes are read
    checkpoint = load_checkpoint(model, folder, device)
    return QwenOmni(model.name, checkpoint, load_dialogue(options.mode or "list"), device, options)


def window_plan(name: str, options: TaggingOptions) -> WindowPlan:
    """Windows of ``options.window_s`` (default 30 s) every ``options.hop_s`` (default: the length of a window).

    Raises:
        SettingsError: the window is too short or too long for the model, or the hop does not fit it.
    """
    window_s = WINDOW_S if options.window_s is None else options.window_s
    if not SHORTEST_WINDOW_S <= window_s <= LONGEST_WINDOW_S:
        raise SettingsError(
            f"BANDSCOPE_TAG_WINDOW_S={window_s:g} does not fit {name}: it must be from {SHORTEST_WINDOW_S:g} to "
            f"{LONGEST_WINDOW_S:g} s"
        )
    return options.window_plan(name, SAMPLE_RATE, round(window_s * SAMPLE_RATE))


class QwenOmni:
    """The ``Tagger`` with the thinker of a Qwen-Omni model. Its tags have no scores."""

    fixed_batch = False

    def __init__(
        self,
        name: str,
        checkpoint: OmniCheckpoint,
        dialogue: Dialogue,
        device: str,
        options: TaggingOptions,
    ) -> None:
        """``checkpoint`` is on ``device``; ``dialogue`` has the questions for every window.

        Raises:
            SettingsError: the options do not fit the model.
        """
        self._thinker: Any = checkpoint.thinker  # its ``generate`` is not typed for its own class
        self._processor: Any = checkpoint.processor
        self._dialogue = dialogue
        self.device = device
        self.plan = window_plan(name, options)
        self.batch = options.batch or (CPU_BATCH if device == "cpu" else ACCELERATOR_BATCH)
        questions = (*dialogue.questions, dialogue.repair)
        self.identity = ModelIdentity(
            name=name,
            sha256=checkpoint.sha256,
            params={
                "sample_rate": SAMPLE_RATE,
                "window_frames": self.plan.length,
                "window_hop": self.plan.hop,
                "mode": dialogue.mode,
                "parser": PARSER_VERSION,
                "prompts_sha256": dialogue.sha256,
                "max_new_tokens": [question.max_new_tokens for question in questions],
                "precision": str(checkpoint.thinker.dtype).removeprefix("torch."),
            },
        )

    def tag(self, windows: NDArray[np.float32]) -> list[Heard]:
        """``(batch, length)`` mono float32 in [-1, 1] → the model's answer for each window, parsed.

        If an answer cannot be parsed, the model is asked once more; if that fails too, the ``Heard`` has an error.

        Raises:
            RuntimeError: the model computed values that are not finite; or torch's own, if memory runs out.
        """
        self.plan.check(windows, self.identity.name)
        conversations = [Conversation(self._dialogue) for _ in windows]
        # All open conversations have the same question open.
        while asked := [index for index, each in enumerate(conversations) if each.question is not None]:
            self._ask([conversations[index] for index in asked], windows[asked])
        return [conversation.heard for conversation in conversations]

    def _ask(self, conversations: Sequence[Conversation], windows: NDArray[np.float32]) -> None:
        """Ask the model the open question of every conversation, and add its answers."""
        question = conversations[0].question
        assert question is not None
        answers = self.answers([each.messages for each in conversations], windows, question.max_new_tokens)
        for conversation, answer in zip(conversations, answers, strict=True):
            conversation.answer(answer)

    def answers(
        self, chats: Sequence[Sequence[Mapping[str, Any]]], windows: NDArray[np.float32], most_tokens: int
    ) -> list[str]:
        """The model's answers, of at most ``most_tokens``, to the last messages of chats, each about its window."""
        import torch
        from transformers import GenerationConfig

        prompts = self._processor.apply_chat_template(
            [list(chat) for chat in chats], add_generation_prompt=True, tokenize=False
        )
        # Qwen2.5's processor pads audio with silence to 300 s, and the thinker ignores the padding. Padding that covers
        # the last frame of the extractor gives the same features, so no more is added.
        filled = self.plan.length + self._processor.feature_extractor.n_fft
        inputs = self._processor(
            text=prompts,
            audio=list(windows),
            return_tensors="pt",
            text_kwargs={"padding": True, "padding_side": "left"},  # answers continue at the right end
            audio_kwargs={"max_length": filled},
        ).to(self.device)
        tokenizer = self._processor.tokenizer
        greedy = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=most_tokens,
            eos_token_id=tokenizer.convert_tokens_to_ids(list(STOP_TOKENS)),
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.inference_mode():
            output: Any = self._thinker.generate(
                **inputs,
                generation_config=greedy,
                logits_processor=[_known_tokens(len(tokenizer), self.identity.name)],
            )
        return tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )


def _known_tokens(tokens: int, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A logits processor that excludes all tokens but the first ``tokens``, which the tokenizer knows.

    The network's vocabulary is padded to a round number with unused tokens.
    """

    def process(_: Tensor, logits: Tensor) -> Tensor:
        if not logits.isfinite().all():
            raise RuntimeError(
                f"{name} computed logits that are not finite; use BANDSCOPE_DEVICE=cpu or another BANDSCOPE_TAGGER"
            )
        logits[:, tokens:] = -np.inf
        return logits

    return process
