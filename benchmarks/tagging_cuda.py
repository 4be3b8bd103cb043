"""The large taggers on a CUDA device, by batch size, with random weights of the published sizes.

    python -m benchmarks.tagging_cuda [--device cuda]

AST: windows of 10.24 s. "tag" is all of ``Ast.tag``, from samples in memory to tags, as the pipeline calls it. The
other rows are the network alone, on features that are on the device already: in float32, with products rounded to TF32,
and in bfloat16, with the largest difference of a score from float32.

Qwen2.5-Omni-7B: the thinker in bfloat16, greedy, on windows of 30 s with a prompt of 200 tokens and an answer of 64.
"first" is the time to the first token: the audio and the prompt. The time of its processor is not included.

The table has windows per second, seconds of audio per second, and the peak of torch's memory, weights included. The
last line is JSON. Without a CUDA device nothing is measured.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    GenerationConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from bandscope_dagster.separation.inference import inference
from bandscope_dagster.separation.options import Precision
from bandscope_dagster.tagging.ast import Ast, Features
from bandscope_dagster.tagging.audioset import INSTRUMENT_CLASSES
from bandscope_dagster.tagging.options import TaggingOptions
from benchmarks.measuring import MIB

AST_CLASSES = 527  # AudioSet's
AST_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
AST_PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
AST_ROUNDS = 10

QWEN_BATCHES = (1, 2, 4, 8, 16, 32)
QWEN_WINDOW_S = 30
QWEN_FEATURES_PER_S = 100  # Whisper's mel frames
QWEN_PROMPT = 200  # tokens, without the audio's
QWEN_ANSWER = 64  # tokens

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed and memory of one method at one batch size."""

    windows_per_s: float
    audio_per_s: float  # seconds of audio per second
    peak_mib: float


def timed(work: Call, device: str, rounds: int) -> float:
    """Mean seconds of one call over ``rounds``, after a warm-up call."""
    work()
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / rounds


def measured(work: Call, device: str, batch: int, window_s: float, rounds: int) -> Speed | None:
    """The speed of calls with ``batch`` windows; None if memory runs out."""
    torch.cuda.reset_peak_memory_stats(device)
    try:
        seconds = timed(work, device, rounds)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    peak = torch.cuda.max_memory_allocated(device) / MIB
    return Speed(batch / seconds, batch * window_s / seconds, peak)


def row(name: str, batch: int, speed: Speed | None, more: str = "") -> str:
    """One row of a table."""
    if speed is None:
        return f"{name:8}{batch:6}  out of memory"
    return (
        f"{name:8}{batch:6}{speed.windows_per_s:12.2f}{speed.audio_per_s:14.0f}{speed.peak_mib:10.0f}{more}"
    )


def header(more: str) -> str:
    """The header of a table."""
    return f"{'':8}{'batch':>6}{'windows/s':>12}{'times real':>14}{'MiB':>10}{more}"


def random_ast(config: ASTConfig, device: str) -> Ast:
    """An AST tagger with random weights; its classes are AudioSet's instruments, padded to ``AST_CLASSES``."""
    names = sorted(INSTRUMENT_CLASSES)
    names += [f"class {number}" for number in range(AST_CLASSES - len(names))]
    config.id2label = dict(enumerate(names))
    torch.manual_seed(0)
    network = ASTForAudioClassification(config)
    features = Features(config.max_length, config.num_mel_bins, mean=-4.27, std=4.57)
    return Ast("random", "", network, features, device, TaggingOptions())


def measure_ast(tagger: Ast, batches: tuple[int, ...], rounds: int = AST_ROUNDS) -> dict[str, float]:
    """Print the table; returns each method's windows per second at its best batch size."""
    device, length = tagger.device, tagger.plan.length
    window_s = length / tagger.plan.sample_rate
    rng = np.random.default_rng(0)
    print(f"\nAST, {parameters(tagger.network)} M parameters")
    print(header(f"{'Δ score':>12}"))
    best: dict[str, float] = {}
    for batch in batches:
        windows = rng.normal(0, 0.1, (batch, length)).astype(np.float32)
        speed = measured(lambda windows=windows: tagger.tag(windows), device, batch, window_s, rounds)
        print(row("tag", batch, speed))
        keep_best(best, "tag", speed)
        exact: torch.Tensor | None = None
        for precision in AST_PRECISIONS:
            with network_on(tagger, windows, precision) as scores:
                speed = measured(scores, device, batch, window_s, rounds)
                found = None if speed is None else scores()
            difference = ""
            if found is not None:
                exact = found if exact is None else exact
                difference = f"{float((found - exact).abs().max()):12.1g}"
            print(row(precision, batch, speed, difference))
            keep_best(best, precision, speed)
    return best


@contextmanager
def network_on(
    tagger: Ast, windows: np.ndarray, precision: Precision
) -> Iterator[Callable[[], torch.Tensor]]:
    """Yield a call of the network alone, on the features of ``windows``: ``(batch, classes)`` scores."""
    with torch.inference_mode():
        features = tagger.features(torch.from_numpy(windows).to(tagger.device))
    with inference(precision, tagger.device):
        yield lambda: tagger.network(input_values=features).logits.float().sigmoid()


def keep_best(best: dict[str, float], name: str, speed: Speed | None) -> None:
    """Keep the windows per second if they are the most so far."""
    if speed is not None:
        best[name] = max(best.get(name, 0.0), speed.windows_per_s)


def parameters(network: torch.nn.Module) -> int:
    """The number of parameters in millions."""
    return round(sum(p.numel() for p in network.parameters()) / 1e6)


def published_config() -> Qwen2_5OmniThinkerConfig:
    """The configuration of Qwen2.5-Omni-7B: the class's defaults except for two values."""
    # The width of the vision encoder, which is not used here but takes memory; and the token from which positions are
    # counted.
    return Qwen2_5OmniThinkerConfig(vision_config={"hidden_size": 1280}, vision_start_token_id=151_652)


def random_thinker(
    config: Qwen2_5OmniThinkerConfig, device: str
) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A thinker with random weights in bfloat16, created on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        network = Qwen2_5OmniThinkerForConditionalGeneration._from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    return network.eval()


def question(config: Qwen2_5OmniThinkerConfig, batch: int, device: str) -> dict[str, torch.Tensor]:
    """The processor's output for ``batch`` windows: audio tokens between the two halves of a prompt."""
    mel_frames = QWEN_WINDOW_S * QWEN_FEATURES_PER_S
    # After two convolutions and a pooling; see the audio encoder.
    places = ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(
        0, config.text_config.vocab_size * 9 // 10, (2, QWEN_PROMPT // 2), generator=generator
    )
    one = [
        words[0],
        torch.tensor([config.audio_start_token_id]),
        torch.full((places,), config.audio_token_index),
        torch.tensor([config.audio_end_token_id]),
        words[1],
    ]
    ids = torch.cat(one).expand(batch, -1).contiguous().to(device)
    bands = config.audio_config.num_mel_bins
    features = torch.randn((batch, bands, mel_frames), generator=generator)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": features.to(device, torch.bfloat16),
        "feature_attention_mask": torch.ones((batch, mel_frames), dtype=torch.long, device=device),
    }


def measure_qwen(
    network: Qwen2_5OmniThinkerForConditionalGeneration, batches: tuple[int, ...], device: str
) -> dict[str, float]:
    """Print the table; returns the windows per second at each batch size."""
    print(f"\nQwen2.5-Omni thinker, {parameters(network)} M parameters")
    print(header(f"{'tokens/s':>12}{'first s':>10}"))
    found: dict[str, float] = {}
    for batch in batches:
        inputs = question(network.config, batch, device)

        def answer(tokens: int, inputs: dict[str, torch.Tensor] = inputs) -> torch.Tensor:
            greedy = GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=0)
            with torch.inference_mode():
                return network.generate(**inputs, generation_config=greedy)

        speed = measured(lambda: answer(QWEN_ANSWER), device, batch, QWEN_WINDOW_S, rounds=2)
        if speed is None:
            print(row("bf16", batch, None))
            break
        first = timed(lambda: answer(1), device, rounds=2)
        print(row("bf16", batch, speed, f"{speed.windows_per_s * QWEN_ANSWER:12.0f}{first:10.2f}"))
        found[str(batch)] = speed.windows_per_s
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure AST and Qwen2.5-Omni on a CUDA device.")
    parser.add_argument("--device", default="cuda", help="as torch names it (default: cuda)")
    device = parser.parse_args().device
    if not torch.cuda.is_available():
        print("No CUDA device found: nothing was measured.")
        return
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    ast = measure_ast(random_ast(ASTConfig(), device), AST_BATCHES)
    torch.cuda.empty_cache()
    qwen = measure_qwen(random_thinker(published_config(), device), QWEN_BATCHES, device)

    def rounded(figures: dict[str, float]) -> dict[str, float]:
        return {name: round(value, 3) for name, value in figures.items()}

    print(json.dumps({"ast_windows_per_s": rounded(ast), "qwen_windows_per_s_by_batch": rounded(qwen)}))


if __name__ == "__main__":
    main()
