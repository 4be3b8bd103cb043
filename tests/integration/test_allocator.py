"""Freed memory in glibc: threads share it, tensors use it again, and the system gets it back every 20 s.

Every test uses a new process.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bandscope_dagster.allocator import restart_without_thread_caches

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")


def in_a_process(code: str, *arguments: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FAULTS = """
import json, resource, torch
from bandscope_dagster import allocator
freed = allocator.FreedMemory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 * 2**20)
        freed.give_back()  # as between blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
allocator.keep_freed_memory()
for _ in range(4):  # until the heap does not grow any more
    last = faults()
print(json.dumps([first, last]))
"""


def test_the_memory_of_freed_tensors_is_reused_without_page_faults() -> None:
    before, after = in_a_process(FAULTS)
    assert before > 5 * 16_000  # 64 MiB in pages of 4 KiB, faulted in every time
    assert after < before / 100


FREED = """
import json, sys
import numpy as np
from pathlib import Path
from bandscope_dagster import allocator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

allocator.GIVE_BACK_EVERY_S = 0.0
if sys.argv[1] == "kept":
    allocator.keep_freed_memory()
freed = allocator.FreedMemory()
blocks = [np.ones(10_000) for _ in range(4000)]  # 80 kB each, adjacent in memory
full = resident()
del blocks[:-1]  # the last keeps the heap from shrinking
kept = resident()
freed.give_back()
print(json.dumps([full, kept, resident()]))
"""


@pytest.mark.parametrize("how", ["by itself", "kept"])
def test_freed_memory_between_used_blocks_is_returned_to_the_system(how: str) -> None:
    full, kept, after = in_a_process(FREED, how)
    assert full - kept < 50, "glibc alone keeps it"
    assert kept - after > 250


SHARED = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from bandscope_dagster.allocator import share_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

def use():
    held = [np.ones(10_000) for _ in range(2000)]  # 80 kB each
    return held[-1]  # the last keeps the heap from shrinking; the others are freed

if sys.argv[1] == "shared":
    share_freed_memory()
with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
    held = [first.submit(use).result()]
    before = resident()
    held.append(second.submit(use).result())
    print(json.dumps([before, resident()]))
"""


def test_memory_freed_by_one_thread_is_used_by_another() -> None:
    before, after = in_a_process(SHARED, "alone")
    assert after - before > 100, "by default, each thread keeps its own freed memory"
    before, after = in_a_process(SHARED, "shared")
    assert after - before < 20


RESTARTED = """
import os, sys
from bandscope_dagster.allocator import restart_without_thread_caches
print("begins", os.getpid(), flush=True)
restart_without_thread_caches()
print(os.getpid(), os.environ["GLIBC_TUNABLES"], sys.argv[1:], sys.flags.dev_mode, sys.stdin.read())
"""


@pytest.mark.parametrize("before", ["", "glibc.malloc.arena_max=3"])
def test_a_program_is_restarted_once_with_the_same_arguments(before: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(RESTARTED)
    environment = os.environ | {"GLIBC_TUNABLES": before}
    command = [sys.executable, "-X", "dev", str(script), "two words", "--flag"]
    done = subprocess.run(command, input="typed", env=environment, capture_output=True, text=True, check=True)
    first, second, last = done.stdout.splitlines()
    assert first == second and first.startswith("begins"), "the process id does not change"
    number = first.split()[1]
    tunables = f"{before}:glibc.malloc.tcache_count=0".lstrip(":")
    assert last == f"{number} {tunables} ['two words', '--flag'] True typed"


@pytest.mark.parametrize("tunables", ["glibc.malloc.tcache_count=0", "glibc.malloc.tcache_count=3"])
def test_a_program_whose_caches_are_set_is_not_restarted(tunables: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(RESTARTED)
    done = subprocess.run(
        [sys.executable, str(script)],
        input="",
        env=os.environ | {"GLIBC_TUNABLES": tunables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("begins") == 1 and tunables in done.stdout


STEP = """
import json, sys
import dagster as dg
from bandscope_dagster.orchestration.steps import song_step
called = []
sys.addaudithook(lambda event, details: called.append(details[1]) if event == "ctypes.dlsym" else None)
before = called.count("mallopt")
with dg.DagsterInstance.ephemeral() as instance, song_step(instance):
    print(json.dumps([before, called.count("mallopt")]))
"""


def test_a_step_over_songs_shares_freed_memory_from_its_beginning() -> None:
    before, within = in_a_process(STEP)
    assert before == 0 and within > 0


def test_a_program_that_only_imports_the_command_is_not_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "argv", ["bandscope", "run"])
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("this would replace the test process"))
    restart_without_thread_caches()
    assert "GLIBC_TUNABLES" not in os.environ
