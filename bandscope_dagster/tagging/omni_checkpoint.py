"""Read the parts of a Qwen-Omni checkpoint that answer audio with text: the thinker and a processor.

The published checkpoints hold whole models, which also speak. Only the thinker is built (Xu et al., "Qwen2.5-Omni
Technical Report", 2025; "Qwen3-Omni Technical Report", 2025), with the classes of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import Model
from bandscope_dagster.models.store import verified_folder
from bandscope_dagster.tagging.pretrained import missing_files, read_pretrained

if TYPE_CHECKING:
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2_5OmniThinkerForConditionalGeneration,
        Qwen3OmniMoeProcessor,
        Qwen3OmniMoeThinkerForConditionalGeneration,
    )

    Thinker = Qwen2_5OmniThinkerForConditionalGeneration | Qwen3OmniMoeThinkerForConditionalGeneration
    Processor = Qwen2_5OmniProcessor | Qwen3OmniMoeProcessor

# model_type in config.json → the names of the classes of thinker and processor in transformers.
CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "qwen2_5_omni": ("Qwen2_5OmniThinkerForConditionalGeneration", "Qwen2_5OmniProcessor"),
    "qwen3_omni_moe": ("Qwen3OmniMoeThinkerForConditionalGeneration", "Qwen3OmniMoeProcessor"),
}
SPEAKING_PARTS: Final = ("talker.", "token2wav.", "code2wav.")
"""Prefixes of the tensors that turn the thinker's text into speech; they are not read."""

FILES: Final = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files that every checkpoint has, beside the weights (one or more files) and the files of the vocabulary."""

STOP_TOKENS: Final = ("<|im_end|>", "<|endoftext|>")  # the end of a turn in ChatML, and the end of a text


@dataclass(frozen=True, slots=True)
class OmniCheckpoint:
    """A thinker, ready to generate, and the processor that prepares its inputs."""

    thinker: Thinker
    processor: Processor
    sha256: str  # of the files


def load_checkpoint(model: Model, folder: Path, device: str) -> OmniCheckpoint:
    """The thinker and the processor of a model of the inventory with its files in ``folder``; nothing is downloaded.

    On an accelerator the weights keep the checkpoint's precision. On a CPU they are float32, since few CPUs compute in
    bfloat16.

    Raises:
        ModelFileError: a file is missing or is not the one in the inventory, the checkpoint is of another model, or
            its tensors are not exactly those of the thinker and of its speech.
    """
    with verified_folder(model, folder) as verified:
        if missing := missing_files(verified.path, FILES):
            raise _unfit(model, missing)
        config = json.loads((verified.path / "config.json").read_bytes())
        model_type = config.get("model_type")
        if model_type not in CLASSES:
            raise _unfit(
                model, f"config.json is for {model_type!r}; only {' and '.join(CLASSES)} are supported"
            )
        thinker_class, processor_class = CLASSES[model_type]
        processor = _read_processor(processor_class, verified.path)
        if processor.chat_template is None:
            raise _unfit(model, "it has no chat template")
        thinker = _read_thinker(thinker_class, model, verified.path, device)
        return OmniCheckpoint(thinker, processor, verified.sha256)


def _unfit(model: Model, what: str) -> ModelFileError:
    return ModelFileError(
        f"Model {model.name} is not a Qwen-Omni tagger: {what}. Correct its entry in inventory.toml."
    )


def _read_thinker(class_name: str, model: Model, folder: Path, device: str) -> Thinker:
    import torch
    import transformers

    try:
        thinker: Thinker = read_pretrained(
            getattr(transformers, class_name),
            folder,
            dtype=torch.float32 if device == "cpu" else "auto",
            unread=SPEAKING_PARTS,
            generation_config=transformers.GenerationConfig(),  # not the checkpoint's, whose values ours would inherit
        )
    except ValueError as error:
        raise _unfit(model, f"its weights are not those of {class_name} ({error})") from error
    return thinker.eval().requires_grad_(False).to(device)  # pyright: ignore[reportArgumentType, reportReturnType]


def _read_processor(class_name: str, folder: Path) -> Processor:
    """The processor without the parts for images and video, which need torchvision and Pillow."""
    import transformers
    from transformers.processing_utils import ProcessorMixin

    stock: Any = getattr(transformers, class_name)

    class AudioProcessor(stock):
        """A processor of audio and text. transformers reads the list of its parts from the signature of ``__init__``;
        the stock class uses the other parts for images and videos only."""

        def __init__(
            self, feature_extractor: Any = None, tokenizer: Any = None, chat_template: str | None = None
        ) -> None:
            template = chat_template or tokenizer.chat_template
            ProcessorMixin.__init__(self, feature_extractor, tokenizer, chat_template=template)
            for kind in ("image", "audio", "video"):
                setattr(self, f"{kind}_token", getattr(tokenizer, f"{kind}_token"))
                setattr(self, f"{kind}_token_id", getattr(tokenizer, f"{kind}_token_id"))

    return AudioProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
