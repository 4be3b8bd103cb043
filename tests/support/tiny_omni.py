"""Tiny Qwen-Omni checkpoints in the published layout: real classes, with random weights or built-in answers.

As on the hub, config.json and the sharded weights are those of the whole model: the thinker under ``thinker.``, and
some of the parts that make speech.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import torch
import transformers  # its classes are loaded at their first use, which takes seconds
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from tokenizers import pre_tokenizers

from bandscope_dagster.models.inventory import HubSource, Model, ModelFile

torch.set_num_threads(1)  # for so little work a second thread saves nothing and can cost much

FAMILIES = ("qwen2.5-omni", "qwen3-omni")
WIDTH = 64  # of the language model; the most pieces of built-in answers, over all turns
TURNS = 3  # answers in a conversation, at most
UNUSED_TOKENS = 9  # the published networks have more tokens than their tokenizers too

Thinker: TypeAlias = "transformers.PreTrainedModel"


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer in one turn, for any audio: ASCII pieces, all different within a model."""

    pieces: tuple[str, ...]
    loops: bool = False  # after the last piece comes the second again, without an end

    @property
    def text(self) -> str:
        """The text of the answer; the first round of one that loops."""
        return "".join(self.pieces)


LIST = Answer(('["grand', ' piano", "', "double bass", '", "female', ' vocal"]'))
DESCRIPTION = Answer(("Behind, a soft pad;", " in the middle a piano,", " and in front a singer."))
LAYERS = Answer(
    ('{"background": ["synth', ' pad"], "middle_ground": ["pi', 'ano"], "foreground": ["vo', 'cals"]}')
)
LOOPING = Answer(('["piano"', ', "drums"', ', "electric bass"'), loops=True)
PROSE = Answer(("I am sorry,", " but I cannot", " listen to this."))
STILL_PROSE = Answer(("There is", " nothing more", " to be said."))


def save_tiny_omni(
    folder: Path,
    family: str = "qwen2.5-omni",
    answers: Sequence[Answer] = (),
    seed: int = 0,
    name: str | None = None,
    head: int = 16,
) -> Model:
    """Write a checkpoint into ``folder``; return its entry in the inventory.

    ``answers`` are those of the first, second and third turn of a conversation; without answers, weights are random.
    ``head`` is the width of an attention head, 16 or 32: vLLM refuses 16 on a CPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary(family, answers)
    thinker = tiny_thinker(family, answers, seed, head)
    _save_config(folder, family, thinker.config)
    _save_processor(folder, family, vocabulary)
    save_weights(folder, published_tensors(thinker, family))
    return entry(folder, name or family)


def tiny_thinker(family: str, answers: Sequence[Answer] = (), seed: int = 0, head: int = 16) -> Thinker:
    """The thinker of ``save_tiny_omni``, in float32; all weights are values that bfloat16 holds, as in the file."""
    vocabulary = Vocabulary(family, answers)
    torch.manual_seed(seed)
    if family == "qwen3-omni":
        thinker: Thinker = transformers.Qwen3OmniMoeThinkerForConditionalGeneration(
            _qwen3_config(vocabulary, head)
        )
    else:
        thinker = transformers.Qwen2_5OmniThinkerForConditionalGeneration(_qwen2_5_config(vocabulary, head))
    with torch.no_grad():
        for parameter in thinker.parameters():
            # The weights that transformers draws are so small that the audio hardly affects a tiny network's output.
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
        if answers:
            _build_in(thinker, vocabulary, answers)
        for parameter in thinker.parameters():
            parameter.copy_(parameter.bfloat16())
    return thinker.eval()


class Vocabulary:
    """One token for each byte, for each piece of an answer, and the special tokens of the family.

    There are no merges, so text is always encoded byte by byte: pieces are in outputs only, never in inputs.
    """

    def __init__(self, family: str, answers: Sequence[Answer]) -> None:
        new = family == "qwen3-omni"
        self.audio = "<|audio_pad|>" if new else "<|AUDIO|>"
        self.audio_begin, self.audio_end = (
            ("<|audio_start|>", "<|audio_end|>") if new else ("<|audio_bos|>", "<|audio_eos|>")
        )
        self.image, self.video = ("<|image_pad|>", "<|video_pad|>") if new else ("<|IMAGE|>", "<|VIDEO|>")
        self.vision_begin, self.vision_end = (
            ("<|vision_start|>", "<|vision_end|>") if new else ("<|vision_bos|>", "<|vision_eos|>")
        )
        pieces = [piece for answer in answers for piece in answer.pieces]
        assert len(set(pieces)) == len(pieces), "two pieces of the answers are the same"
        # The encoded form of a space; other printable ASCII characters are encoded as themselves.
        self.texts = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(p.replace(" ", "Ġ") for p in pieces)]
        self.specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        self.specials += [self.audio, self.audio_begin, self.audio_end, self.image, self.video]
        self.specials += [self.vision_begin, self.vision_end]
        self.specials += [f"<|turn_{turn}|>" for turn in range(1, TURNS + 1)]
        self._ids = {token: index for index, token in enumerate([*self.texts, *self.specials])}

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, token: str) -> int:
        """The number of a token, or of a piece by its text."""
        return self._ids[token.replace(" ", "Ġ")]

    @property
    def chat_template(self) -> str:
        """A template like the published ones (ChatML), reduced to the messages of an audio tagger.

        It adds the number of the turn before the answer; a built-in answer continues from that number.
        """
        return (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
            "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
            "{% if c['type'] == 'audio' %}" + self.audio_begin + self.audio + self.audio_end + "{% else %}"
            "{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n<|turn_{{ messages|length // 2 }}|>{% endif %}"
        )


def _build_in(thinker: Thinker, vocabulary: Vocabulary, answers: Sequence[Answer]) -> None:
    """Make the next token depend on the last token only: each embedding is a direction of its own, and passes
    unchanged through layers whose outputs are zero."""
    language_model = thinker.model.language_model
    for name, parameter in language_model.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            parameter.zero_()
    embeddings, head = language_model.embed_tokens.weight, thinker.lm_head.weight
    embeddings.zero_()
    head.zero_()
    directions = iter(range(WIDTH))
    for turn, answer in enumerate(answers, start=1):
        after = answer.pieces[1] if answer.loops else "<|im_end|>"
        chain = [f"<|turn_{turn}|>", *answer.pieces, after]
        for token, following in pairwise(chain):
            direction = next(directions)
            embeddings[vocabulary.id(token), direction] = 1
            head[vocabulary.id(following), direction] = 1


def _text_config(vocabulary: Vocabulary, head: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(vocabulary) + UNUSED_TOKENS,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": WIDTH // head,
        "num_key_value_heads": WIDTH // head // 2,
        "tie_word_embeddings": False,  # vLLM reads it here, transformers in the section of the thinker
        **more,
    }


def _audio_config(**more: Any) -> dict[str, Any]:
    return {
        "num_mel_bins": 128,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "d_model": 32,
        "output_dim": WIDTH,
        **more,
    }


def _qwen2_5_config(vocabulary: Vocabulary, head: int) -> transformers.Qwen2_5OmniThinkerConfig:
    section = [part * head // 16 for part in (2, 3, 3)]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section}
    return transformers.Qwen2_5OmniThinkerConfig(
        audio_config=_audio_config(n_window=100),
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0],
        },
        text_config=_text_config(vocabulary, head, rope_parameters=rope),
        audio_token_index=vocabulary.id(vocabulary.audio),
        image_token_index=vocabulary.id(vocabulary.image),
        video_token_index=vocabulary.id(vocabulary.video),
        **_marks(vocabulary),
    )


def _qwen3_config(vocabulary: Vocabulary, head: int) -> transformers.Qwen3OmniMoeThinkerConfig:
    section = [part * head // 16 for part in (4, 2, 2)]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section, "mrope_interleaved": True}
    return transformers.Qwen3OmniMoeThinkerConfig(
        audio_config=_audio_config(n_window=50, downsample_hidden_size=8),
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        text_config=_text_config(
            vocabulary,
            head,
            rope_parameters=rope,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
        ),
        audio_token_id=vocabulary.id(vocabulary.audio),
        image_token_id=vocabulary.id(vocabulary.image),
        video_token_id=vocabulary.id(vocabulary.video),
        **_marks(vocabulary),
    )


def _marks(vocabulary: Vocabulary) -> dict[str, int]:
    return {
        "audio_start_token_id": vocabulary.id(vocabulary.audio_begin),
        "audio_end_token_id": vocabulary.id(vocabulary.audio_end),
        "vision_start_token_id": vocabulary.id(vocabulary.vision_begin),
        "vision_end_token_id": vocabulary.id(vocabulary.vision_end),
        "user_token_id": vocabulary.id("u"),
    }


def _save_config(
    folder: Path,
    family: str,
    thinker: transformers.Qwen2_5OmniThinkerConfig | transformers.Qwen3OmniMoeThinkerConfig,
) -> None:
    whole = transformers.Qwen3OmniMoeConfig if family == "qwen3-omni" else transformers.Qwen2_5OmniConfig
    values = whole(thinker_config=thinker.to_dict()).to_dict()
    values["architectures"] = [
        "Qwen3OmniMoeForConditionalGeneration" if family == "qwen3-omni" else "Qwen2_5OmniModel"
    ]
    values["thinker_config"]["dtype"] = "bfloat16"
    (folder / "config.json").write_text(json.dumps(values))
    # Settings for sampling, as the published ones have, and some that change even the most likely token: all must be
    # ignored.
    sampling = {"do_sample": True, "temperature": 5.0, "top_k": 3, "top_p": 0.5, "no_repeat_ngram_size": 2}
    (folder / "generation_config.json").write_text(json.dumps({**sampling, "eos_token_id": 0}))


def _save_processor(folder: Path, family: str, vocabulary: Vocabulary) -> None:
    whisper = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "chunk_length": 300,
        "dither": 0.0,
        "feature_size": 128,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 4_800_000,
        "nb_max_frames": 30_000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": 16_000,
    }
    images = {"image_processor_type": "Qwen2VLImageProcessor", "merge_size": 2, "patch_size": 14}
    processor = "Qwen3OmniMoeProcessor" if family == "qwen3-omni" else "Qwen2_5OmniProcessor"
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**whisper, **images, "processor_class": processor})
    )
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": vocabulary.chat_template}))
    (folder / "vocab.json").write_text(
        json.dumps({text: index for index, text in enumerate(vocabulary.texts)})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n")
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    roles = {
        "image_token": vocabulary.image,
        "audio_token": vocabulary.audio,
        "video_token": vocabulary.video,
        "vision_bos_token": vocabulary.vision_begin,
        "vision_eos_token": vocabulary.vision_end,
        "audio_bos_token": vocabulary.audio_begin,
        "audio_eos_token": vocabulary.audio_end,
    }
    tokenizer = {
        "added_tokens_decoder": {
            str(vocabulary.id(special)): {"content": special, **token} for special in vocabulary.specials
        },
        "additional_special_tokens": vocabulary.specials[1:],
        "extra_special_tokens": roles,
        **roles,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": 32_768,
        "processor_class": processor,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


def published_tensors(thinker: Thinker, family: str) -> dict[str, torch.Tensor]:
    """The tensors of a whole model under their published names, in bfloat16; those for speech are a few zeros."""
    # transformers saves the thinker alone under the published names, without the prefix.
    with TemporaryDirectory() as scratch:
        thinker.save_pretrained(scratch)
        alone = load_file(Path(scratch) / "model.safetensors")
    tensors = {f"thinker.{name}": tensor.bfloat16() for name, tensor in alone.items()}
    speaking = ("code2wav" if family == "qwen3-omni" else "token2wav", "talker")
    return tensors | {f"{part}.model.layers.0.weight": torch.zeros(4, 4) for part in speaking}


def save_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write shards of 100 kB and their index."""
    save_torch_state_dict(tensors, folder, max_shard_size="100KB")


def entry(folder: Path, name: str) -> Model:
    """The entry in the inventory of all files in ``folder``."""
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return Model(
        name=name,
        kind="tagger",
        embedded=False,
        description="A tiny Qwen-Omni.",
        licence="Apache-2.0",
        citation="None.",
        files=tuple(
            ModelFile(file, len(content), hashlib.sha256(content).hexdigest())
            for file, content in contents.items()
        ),
        source=HubSource("https://example.org/omni", "example/tiny-omni", "0" * 40),
    )
