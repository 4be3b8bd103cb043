"""Packages are installed by digest: hashes.txt has digests of every pinned version; other files are refused."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNHASHED = {"torch"}  # each machine has its own build
SHOWN = "six"  # small, and a dependency of others


def hashes() -> dict[str, str]:
    """Package at its version → its lines in hashes.txt."""
    blocks = re.findall(
        r"^(\S+==\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", hashes_text(), re.MULTILINE
    )
    return dict(blocks)


def hashes_text() -> str:
    """The packages in hashes.txt, with their lines."""
    return (ROOT / "hashes.txt").read_text()


def test_every_pinned_version_has_its_digests() -> None:
    pinned = {
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    }
    assert hashes().keys() == {pin for pin in pinned if pin.partition("==")[0] not in UNHASHED}
    assert hashes_text().count("--hash=") == sum(text.count("--hash=") for text in hashes().values())


def test_a_package_with_another_digest_is_not_installed(tmp_path: Path) -> None:
    (found,) = (pin for pin in hashes() if pin.startswith(f"{SHOWN}=="))
    right = tmp_path / "right.txt"
    wrong = tmp_path / "wrong.txt"
    right.write_text(found + hashes()[found] + "\n")
    wrong.write_text(found + re.sub(r"[0-9a-f]{64}", "0" * 64, hashes()[found]) + "\n")
    for constraints, installed in ((wrong, False), (right, True)):
        command = [sys.executable, "-m", "uv", "pip", "install", "--no-cache", "--target", tmp_path / "here"]
        ended = subprocess.run([*command, "-c", constraints, SHOWN], capture_output=True, text=True)
        assert (ended.returncode == 0) == installed, ended.stderr
        assert (tmp_path / "here" / f"{SHOWN}.py").exists() == installed
        assert installed or "Hash mismatch" in ended.stderr
