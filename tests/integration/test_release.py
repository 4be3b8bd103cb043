"""A release: wheel and sdist are complete, install into a clean environment, and name one version everywhere."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from bandscope_dagster.models.inventory import load_inventory

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("assets", "bandscope_dagster")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind → the file that ``python -m build`` makes; the wheel is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation the build uses the hatchling of this environment, and needs no network.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def repository_files() -> set[str]:
    """Every file that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).exists()}


def test_the_sdist_has_every_file_of_the_repository_and_no_other(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert names - {"PKG-INFO"} == repository_files()


def test_the_wheel_has_every_file_of_both_packages_and_no_other(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {name for name in repository_files() if name.startswith(tuple(f"{p}/" for p in PACKAGES))}


def test_the_wheel_carries_our_licence_and_those_of_the_embedded_weights(built: dict[str, Path]) -> None:
    info = f"bandscope-{PROJECT['version']}.dist-info"
    embedded = [model for model in load_inventory().values() if model.embedded]
    with zipfile.ZipFile(built["wheel"]) as archive:
        metadata = archive.read(f"{info}/METADATA").decode()
        licences = {
            name.removeprefix(f"{info}/licenses/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith(f"{info}/licenses/")
        }
    assert "License-Expression: MIT\n" in metadata
    wanted = ["LICENSE", *(f"bandscope_dagster/models/{model.licence_file}" for model in embedded)]
    assert licences == {name: (ROOT / name).read_bytes() for name in wanted}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_installs_into_a_clean_environment_and_doctor_passes_there(
    kind: str, built: dict[str, Path], tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    own = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    # The libraries of this environment, behind the new one's own; its editable install of Bandscope is not followed.
    (own / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--python", python, built[kind]], check=True, capture_output=True)
    home = tmp_path / "home"
    home.mkdir()
    clean = {
        name: value for name, value in os.environ.items() if not re.match("BANDSCOPE|DAGSTER|PYTHON", name)
    }

    def run(*command: str | Path) -> str:
        ended = subprocess.run(
            command, cwd=home, env=clean | {"HOME": str(home)}, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    where = "import assets, bandscope_dagster.definitions as d; print(assets.__file__, d.__file__)"
    assert run(python, "-c", where).split() == [
        f"{own}/assets/__init__.py",
        f"{own}/bandscope_dagster/definitions.py",
    ]
    said = run(environment / "bin" / "bandscope", "doctor")
    assert re.findall(r"^ok +(settings|storage|device|models|Dagster home) ", said, re.MULTILINE) == [
        "settings",
        "storage",
        "device",
        "models",
        "Dagster home",
    ]
    assert (home / ".bandscope" / "dagster" / "dagster.yaml").is_file()


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == PROJECT["version"]


def test_every_image_in_deploy_has_this_version_as_its_tag() -> None:
    texts = [
        path.read_text()
        for path in sorted((ROOT / "deploy").rglob("*"))
        if path.suffix != ".pyc" and path.is_file()
    ]
    tags = re.findall(r"bandscope-(?:control|worker|vllm)(?::|, tag: )(\d[\w.]*)", "\n".join(texts))
    assert len(tags) >= 10 and set(tags) == {PROJECT["version"]}
