"""CONTRIBUTING.md: a step that was forgotten when something is added makes a test fail."""

import ast
from collections.abc import Mapping

import pytest
from syntax_trees import ALL, PACKAGE, ROOT

from bandscope_dagster.cli.app import app
from bandscope_dagster.models.inventory import load_inventory
from bandscope_dagster.separation.registry import SEPARATORS
from bandscope_dagster.tagging.registry import TAGGERS


@pytest.mark.parametrize(
    ("kind", "registry"), [("separator", SEPARATORS), ("tagger", TAGGERS)], ids=["separation", "tagging"]
)
def test_a_registry_has_the_models_of_the_inventory(kind: str, registry: Mapping[str, object]) -> None:
    assert list(registry) == [model.name for model in load_inventory().values() if model.kind == kind]


def implementations(room: str, method: str) -> set[str]:
    """The modules of a room that have a class with this method, without its protocol; below the room."""
    return {
        name.removeprefix(f"{PACKAGE}.{room}.")
        for name, tree in ALL.items()
        if name.startswith(f"{PACKAGE}.{room}.") and not name.endswith(".protocol")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for member in node.body
        if isinstance(member, ast.FunctionDef) and member.name == method
    }


def has_tests(room: str, module: str) -> bool:
    """True if a test file is named after the module, or after the folder that it is in."""
    names = [module.replace(".", "_"), module.partition(".")[0]]
    return any(list((ROOT / "tests").glob(f"*/test_{room}_{name}.py")) for name in names)


@pytest.mark.parametrize(("room", "method"), [("separation", "separate"), ("tagging", "tag")])
def test_every_model_has_tests(room: str, method: str) -> None:
    found = implementations(room, method)
    assert found >= {"separation": {"spleeter"}, "tagging": {"instruments", "musicnn", "ast"}}[room]
    assert {module for module in found if not has_tests(room, module)} == set()


def test_every_command_has_a_module_and_tests() -> None:
    tests = {path: path.read_text() for path in (ROOT / "tests").glob("*/test_*.py")}
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        assert (ROOT / PACKAGE / "cli" / f"{name}.py").is_file(), name
        named = f"test_cli_{name}.py"
        assert any(
            path.name == named or f"{PACKAGE}.cli.{name} import" in text for path, text in tests.items()
        ), name
