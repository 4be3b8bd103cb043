"""deploy/docker: the packages of the two images, and their versions."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = ["control", "worker"]
EXTRAS = ["k8s", "postgres", "ray"]


def instructions(image: str) -> list[tuple[str, str]]:
    """(instruction, arguments on one line) for each instruction, in order."""
    text = (DOCKER / f"{image}.Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def installs(image: str) -> list[list[str]]:
    """The arguments of each `pip install` and `uv pip install`, as one list per command."""
    shell = [part for word, rest in instructions(image) if word == "RUN" for part in rest.split("&&")]
    return [part.split()[part.split().index("install") + 1 :] for part in shell if "pip install" in part]


def pinned() -> dict[str, str]:
    """Package → the version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def packages(arguments: list[str]) -> list[str]:
    """The packages and files in an install's arguments, without options and their values."""
    found = list(arguments)
    for option in ("-c", "-r", "--extra", "--build-constraints", "--prefix"):
        while option in found:
            at = found.index(option)
            del found[at : at + 2]
    return [
        argument for argument in found if not argument.startswith(("-", "$"))
    ]  # $: an option of the shell


def closure(names: list[str]) -> set[str]:
    """These packages and their dependencies on this platform, from the metadata of installed packages."""
    wanted, seen = [Requirement(name) for name in names], set[str]()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name in seen:
            continue
        seen.add(name)
        for line in requires(name) or []:
            needed = Requirement(line)
            extras = ["", *sorted(requirement.extras)]
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(needed)
    return seen


@pytest.mark.parametrize("image", IMAGES)
def test_everything_is_installed_at_the_versions_of_constraints_txt(image: str) -> None:
    for arguments in installs(image):
        if packages(arguments) == ["."]:
            assert "--no-deps" in arguments
            continue
        given = [value for option, value in pairwise(arguments) if option == "-c"]
        by_pip_or_torch = packages(arguments) in (
            ["uv"],
            ["torch"],
        )  # torch is not in hashes.txt, for the reason given there
        assert given == ["constraints.txt"] + ["hashes.txt"] * (not by_pip_or_torch)
        assert {canonicalize_name(name) for name in packages(arguments)} <= pinned().keys()


@pytest.mark.parametrize("image", IMAGES)
def test_all_stages_have_one_python_of_an_exact_version_that_the_package_takes(image: str) -> None:
    stages = [rest.split() for word, rest in instructions(image) if word == "FROM"]
    named = {stage[2] for stage in stages if len(stage) == 3}
    (base,) = {stage[0] for stage in stages} - named
    version = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-bookworm", base)
    assert version is not None, base
    assert version[1].startswith("3.11."), "constraints.txt was written under this version"


def test_what_builds_our_wheel_has_an_exact_version() -> None:
    (argument,) = [
        rest for word, rest in instructions("worker") if word == "ARG" and rest.startswith("HATCHLING")
    ]
    assert re.fullmatch(r"HATCHLING=\d+\.\d+\.\d+", argument)


def test_the_control_image_has_no_torch_and_none_of_our_code() -> None:
    names = [name for arguments in installs("control") for name in packages(arguments)]
    installed = closure(names)
    assert {"dagster-webserver", "dagster-postgres", "dagster-k8s", "psycopg2-binary"} <= installed
    assert not installed & {"torch", "numpy", "bandscope"}
    assert installed <= pinned().keys() | {"uv"}, "no package of any version"
    assert not [rest for word, rest in instructions("control") if word == "COPY" and "bandscope" in rest]


def test_the_worker_image_has_what_the_package_and_the_extras_of_a_cluster_need() -> None:
    (of_project,) = [arguments for arguments in installs("worker") if "-r" in arguments]
    assert of_project[of_project.index("-r") + 1] == "pyproject.toml"
    assert [value for option, value in pairwise(of_project) if option == "--extra"] == EXTRAS
    assert set(EXTRAS) <= PROJECT["optional-dependencies"].keys()


def test_a_change_of_our_code_is_a_layer_of_its_own() -> None:
    stage = ""
    added: dict[str, list[str]] = {}  # stage → what it copies
    for word, rest in instructions("worker"):
        if word == "FROM":
            stage = rest.split()[2] if " AS " in rest else "final"
        elif word == "COPY":
            added.setdefault(stage, []).append(rest)
    copies = [each for each in added["final"] if each.startswith("--from")]
    assert copies == ["--from=libraries /opt/venv /opt/venv", "--from=code /opt/code /opt/venv"]
    ours = {"assets", "bandscope_dagster"}
    assert {each.split()[0] for each in added["code"]} == ours
    assert not {part for each in added["libraries"] for part in each.split()} & ours
    (install,) = [arguments for arguments in installs("worker") if packages(arguments) == ["."]]
    assert install[install.index("--prefix") + 1] == "/opt/code"


@pytest.mark.parametrize("image", IMAGES)
def test_certificates_of_a_company_are_trusted_by_whatever_is_built_and_runs(image: str) -> None:
    before_libraries = instructions(image)[: [w for w, _ in instructions(image)].index("FROM", 1)]
    assert ("COPY", "deploy/docker/certificates /usr/local/share/ca-certificates/company") in before_libraries
    assert ("RUN", "update-ca-certificates") in before_libraries
    (variables,) = [rest for word, rest in before_libraries if word == "ENV"]
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    assert variables.split() == [f"SSL_CERT_FILE={bundle}", f"REQUESTS_CA_BUNDLE={bundle}"]
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "deploy/docker/certificates/*.crt" in ignored


def test_torch_comes_before_what_would_bring_another_build_of_it() -> None:
    order = [packages(arguments) for arguments in installs("worker")]
    assert order == [["uv"], ["torch"], [], ["."]]


def test_processes_of_the_worker_image_start_with_the_settings_of_the_allocator() -> None:
    variables = " ".join(rest for word, rest in instructions("worker") if word == "ENV").split()
    assert {"MALLOC_ARENA_MAX=1", "GLIBC_TUNABLES=glibc.malloc.tcache_count=0"} <= {*variables}


@pytest.mark.parametrize("image", IMAGES)
def test_there_is_no_entry_point_because_pods_give_whole_commands(image: str) -> None:
    assert not [word for word, _ in instructions(image) if word in ("ENTRYPOINT", "CMD")]


def copied(image: str) -> Iterator[str]:
    """The files of this repository that an image copies."""
    for word, rest in instructions(image):
        if word == "COPY" and not rest.startswith("--from"):
            yield from rest.split()[:-1]


def test_the_build_gets_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert allowed == {*copied("control"), *copied("worker")}
    assert all((ROOT / name).exists() for name in allowed)
