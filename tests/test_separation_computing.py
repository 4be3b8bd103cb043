"""What a CPU is set up for; in processes of their own, because it counts for a whole process."""

import json
import platform
import subprocess
import sys

import pytest
import torch
from tiny_demucs import tiny_network

from bandscope_dagster.separation.computing import computing, for_inference


def in_a_process(code: str) -> object:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FAULTS = """
import json, resource, torch
from bandscope_dagster.separation.computing import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
keep_freed_memory()
for _ in range(4):  # until the heap has its size
    last = faults()
print(json.dumps([first, last]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_the_memory_of_freed_tensors_is_used_again_without_page_faults() -> None:
    before, after = in_a_process(FAULTS)
    assert before > 5 * 16_000  # 64 MiB in pages of 4 KiB, each time anew
    assert after < before / 100


def test_a_network_on_the_cpu_uses_fused_attention_and_the_fastest_layout() -> None:
    network = for_inference(tiny_network(), "cpu")
    assert not torch.backends.mha.get_fastpath_enabled()
    weights = [w for w in network.parameters() if w.ndim == 4 and w.shape[1] > 1 and w.shape[2] > 1]
    assert weights and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert not network.training and not any(w.requires_grad for w in network.parameters())


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_layers_compute_in_the_precision_that_is_set(precision, expected: torch.dtype) -> None:
    matrix = torch.ones((4, 4))
    with computing(precision, "cpu"):
        assert (matrix @ matrix).dtype == expected
        assert torch.is_inference_mode_enabled()
    assert (matrix @ matrix).dtype == torch.float32


def test_tf32_is_off_again_afterwards() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with computing("tf32", "cpu"):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
