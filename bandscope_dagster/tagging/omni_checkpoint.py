"""Reads what is needed of a Qwen-Omni checkpoint to have audio answered in text: its thinker, and a processor.

The published checkpoints are of whole models, which also speak. Of them only the thinker is built (Xu et al.,
"Qwen2.5-Omni Technical Report", 2025; "Qwen3-Omni Technical Report", 2025), by transformers' own classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import Model
from bandscope_dagster.models.store import verified_folder

if TYPE_CHECKING:
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2_5OmniThinkerForConditionalGeneration,
        Qwen3OmniMoeProcessor,
        Qwen3OmniMoeThinkerForConditionalGeneration,
    )

    Thinker = Qwen2_5OmniThinkerForConditionalGeneration | Qwen3OmniMoeThinkerForConditionalGeneration
    Processor = Qwen2_5OmniProcessor | Qwen3OmniMoeProcessor

# config.json's model_type → the names, in transformers, of the thinker and of the processor.
CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "qwen2_5_omni": ("Qwen2_5OmniThinkerForConditionalGeneration", "Qwen2_5OmniProcessor"),
    "qwen3_omni_moe": ("Qwen3OmniMoeThinkerForConditionalGeneration", "Qwen3OmniMoeProcessor"),
}
SPEAKING_PARTS: Final = ("talker.", "token2wav.", "code2wav.")
"""What the names of those tensors begin with that make speech of the thinker's text; they are not read."""

FILES: Final = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
"""What a checkpoint has beside the weights, whose files differ in number, and the files of the vocabulary."""

STOP_TOKENS: Final = ("<|im_end|>", "<|endoftext|>")  # ChatML's end of a turn, and the end of a text


@dataclass(frozen=True, slots=True)
class OmniCheckpoint:
    """A thinker, ready to generate, and the processor that makes its inputs."""

    thinker: Thinker
    processor: Processor
    sha256: str  # of the files as they were read


def load_checkpoint(model: Model, folder: Path, device: str) -> OmniCheckpoint:
    """The thinker and the processor of a model of the inventory, whose files lie in ``folder``; nothing is fetched.

    On an accelerator the weights keep the checkpoint's precision; a CPU computes in float32, since few of them
    compute in bfloat16.

    Raises:
        ModelFileError: a file is missing or is not the one in the inventory, the checkpoint is of another model, or
            its tensors are not exactly those of the thinker (beside those that make speech).
    """
    with verified_folder(model, folder) as verified:
        if lacking := [name for name in FILES if not (verified.path / name).exists()]:
            raise _unfit(model, f"it has no {', '.join(lacking)}")
        config = json.loads((verified.path / "config.json").read_bytes())
        model_type = config.get("model_type")
        if model_type not in CLASSES:
            raise _unfit(
                model, f"config.json is for {model_type!r}, and only {' and '.join(CLASSES)} are read"
            )
        thinker_class, processor_class = CLASSES[model_type]
        processor = _read_processor(processor_class, verified.path)
        if processor.chat_template is None:
            raise _unfit(model, "it has no chat template")
        thinker = _read_thinker(thinker_class, model, verified.path, device)
        return OmniCheckpoint(thinker, processor, verified.sha256)


def _unfit(model: Model, what: str) -> ModelFileError:
    return ModelFileError(
        f"Model {model.name} is no Qwen-Omni tagger: {what}. Correct its entry in inventory.toml."
    )


def _read_thinker(class_name: str, model: Model, folder: Path, device: str) -> Thinker:
    import torch
    import transformers

    stock: Any = getattr(transformers, class_name)
    loaded: Any = stock.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation="sdpa",
        dtype=torch.float32 if device == "cpu" else "auto",
        generation_config=transformers.GenerationConfig(),  # the checkpoint's would fill what ours leaves open
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    thinker, info = cast("tuple[Thinker, dict[str, Any]]", loaded)
    # Without a look at the info, tensors that are missing would stay random with no more than a warning.
    info["unexpected_keys"] = [key for key in info["unexpected_keys"] if not key.startswith(SPEAKING_PARTS)]
    if wrong := [f"{kind}: {', '.join(sorted(map(str, keys)))}" for kind, keys in info.items() if keys]:
        raise _unfit(model, f"its weights are not those of {class_name} ({'; '.join(wrong)})")
    return thinker.eval().requires_grad_(False).to(device)  # pyright: ignore[reportArgumentType, reportReturnType]


def _read_processor(class_name: str, folder: Path) -> Processor:
    """The processor without its parts for images and video, which need torchvision and Pillow."""
    import transformers
    from transformers.processing_utils import ProcessorMixin

    stock: Any = getattr(transformers, class_name)

    class AudioProcessor(stock):
        """transformers reads from this signature which parts there are; the stock class asks for the others only where
        there are images or videos to process."""

        def __init__(
            self, feature_extractor: Any = None, tokenizer: Any = None, chat_template: str | None = None
        ) -> None:
            template = chat_template or tokenizer.chat_template
            ProcessorMixin.__init__(self, feature_extractor, tokenizer, chat_template=template)
            for kind in ("image", "audio", "video"):
                setattr(self, f"{kind}_token", getattr(tokenizer, f"{kind}_token"))
                setattr(self, f"{kind}_token_id", getattr(tokenizer, f"{kind}_token_id"))

    return AudioProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
