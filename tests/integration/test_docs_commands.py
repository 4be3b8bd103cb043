"""The commands that the pages print run as printed, in an empty home with one song of a few seconds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from audio_files import encode, excerpt
from catalog_songs import CATALOGS, reject
from command_server import write_script
from page_songs import noise, store_song

from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.storage.objects.open_store import open_store

ROOT = Path(__file__).parents[2]
PAGES = [
    *("README.md", "docs/producers.md", "docs/operators.md", "docs/models.md", "docs/results.md"),
    "docs/datasets.md",
]

NOT_RUN = {
    "source .venv/bin/activate": "the test's own environment is active",
    "bash scripts/": "CI is scripts/test.sh; scripts/demo.sh makes an environment",
    "dg dev": "does not end",
    "bandscope run --watch": "does not end; tests/integration/test_cli_watch.py ends it",
    "bandscope retry": "needs a daemon; tests/integration/test_orchestration_retry_backfill.py starts one",
    "bandscope results --follow": "does not end",
    "bandscope results --after": "its cursor is an example; tests/integration/test_cli_results.py has real ones",
    "bandscope models pull": "needs the model hub; tests/integration/test_models_hub.py has one",
    "vllm serve": "needs vLLM; scripts/try_vllm.py installs it",
    "  --limit-mm-per-prompt": "the same command",
    "export BANDSCOPE_TAGGER=qwen2.5-omni BANDSCOPE_TAGGER_URL=": "needs the same server",
    "bandscope models add": "its file is a placeholder; tests/integration/test_models_provision.py has one",
}
"""Beginning of a command → the reason why it does not run here."""

PARTS = ("accompaniment", "vocals", "without vocals")
FENCE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands(page: str, language: str) -> list[str]:
    """The lines of a page in one language that run here; Python is one block."""
    blocks = [code for name, code in FENCE.findall((ROOT / page).read_text()) if name == language]
    if language == "python":
        return blocks
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(tuple(NOT_RUN))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with one processed song, in ~/Music/album."""
    home = tmp_path_factory.mktemp("home")
    album = home / "Music" / "album"
    album.mkdir(parents=True)
    (home / "bin").mkdir()
    write_script(home / "bin")
    tags = {"title": "Night Bus", "artist": "The Bandscope Demo Band"}
    (album / "Night Bus.flac").write_bytes(encode(excerpt(), "flac", "flac", tags=tags))
    shell(home, ["bandscope ingest ~/Music/album", "bandscope run"])
    return home


def shell(home: Path, lines: list[str]) -> str:
    """Run the lines in one shell, which stops at the first error; returns what it printed."""
    program = "set -euxo pipefail\n" + "\n".join(lines)
    kept = {name: value for name, value in os.environ.items() if not re.match("BANDSCOPE|DAGSTER", name)}
    path = f"{home / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = kept | {"HOME": str(home), "PATH": path}
    ended = subprocess.run(
        ["bash", "-c", program], cwd=home, env=environment, capture_output=True, text=True, timeout=900
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, home: Path) -> None:
    lines = commands(page, "sh")
    assert lines
    said = shell(home, lines)
    if page == "README.md":
        check_readme(said, home)


def check_readme(said: str, home: Path) -> None:
    """The files and lines that the README promises are there."""
    names = {path.name for path in [*(home / "parts").iterdir(), *(home / "karaoke").iterdir()]}
    assert {f"The Bandscope Demo Band - Night Bus ({part}).wav" for part in PARTS} <= names
    assert re.search(r"night-bus-[0-9a-f]{12} .* (ok|done)", said)
    assert (home / "pages" / "index.html").is_file()
    (folder,) = (home / "stems").glob("*Night Bus")
    assert {path.name for path in folder.iterdir()} >= {"accompaniment.flac", "vocals.flac", "mixture.flac"}


def test_the_python_of_the_readme_runs(home: Path) -> None:
    (code,) = commands("README.md", "python")
    said = shell(home, [f"{sys.executable} - <<'END'\n{code}\nprint(done.height, levels.height)\nEND"])
    songs = len(list((home / "bandscope" / "songs").glob("*.parquet")))  # other pages may have added some
    assert said.split() == [str(songs), "2"]


def test_the_python_of_the_readme_names_songs_without_a_title_and_leaves_out_rejected_ones(
    tmp_path: Path,
) -> None:
    store = open_store(str(tmp_path / "bandscope"))
    for song, title in (("tagged", "Night Bus"), ("untagged", None)):
        store_song(store, song, {"vocals": noise(1)}, title=title, filename="take.wav")
    reject(store, "rejected", "truncated: 1 of 2 s can be decoded")
    list(refresh(store, CATALOGS))
    (code,) = commands("README.md", "python")
    said = shell(
        tmp_path,
        [f"{sys.executable} - <<'END'\n{code}\nprint(sorted(done['name']), levels['stem'].to_list())\nEND"],
    )
    assert said.strip() == "['Night Bus', 'take.wav'] ['vocals']"


def test_every_exception_is_of_a_command_that_a_page_prints() -> None:
    text = "\n".join(code for page in PAGES for _, code in FENCE.findall((ROOT / page).read_text()))
    assert all(re.search(f"^{re.escape(start)}", text, re.MULTILINE) for start in NOT_RUN)
