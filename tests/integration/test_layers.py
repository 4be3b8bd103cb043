"""Which module may import which, by the syntax trees; and that the commands start without the heavy libraries."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "bandscope_dagster"
HEAVY = ("torch", "torchaudio", "transformers", "demucs", "safetensors.torch")

# What each may import of bandscope_dagster, beside itself. Dagster is known to none of them.
LOWER_LAYERS = {
    "errors": set(),
    "allocator": set(),
    "device": {"errors"},
    "audio": {"errors"},
    "models": {"errors"},
    "storage": {"errors"},
    "separation": {"errors", "allocator", "device", "audio", "models"},
    "tagging": {"errors", "device", "audio", "models"},
    "pictures": {"audio"},
    "exporting": {"errors", "audio", "storage"},
    "pages": {"errors", "audio", "pictures", "separation", "storage", "tagging"},
}


def modules(package: str) -> dict[str, ast.Module]:
    """Dotted name → syntax tree, for every module of a package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    return {
        ".".join((package, *path.relative_to(folder).with_suffix("").parts)): ast.parse(path.read_text())
        for path in sorted(folder.rglob("*.py"))
    }


def imports(nodes: Iterator[ast.AST]) -> set[str]:
    """Every module that import statements name; ``from a import b`` names both a and a.b."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when the module is imported: none inside a function or for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from run_at_import(child)


def is_of(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


ALL = modules(PACKAGE) | modules("assets")


@pytest.mark.parametrize("layer", LOWER_LAYERS)
def test_the_lower_packages_import_only_what_lies_below_them(layer: str) -> None:
    allowed = {layer, *LOWER_LAYERS[layer]}
    own = {name: tree for name, tree in ALL.items() if is_of(name, f"{PACKAGE}.{layer}")}
    assert own
    for name, tree in own.items():
        for found in imports(ast.walk(tree)):
            assert not is_of(found, "dagster") and not is_of(found, "assets"), f"{name} imports {found}"
            if found.startswith(f"{PACKAGE}."):
                assert found.split(".")[1] in allowed, f"{name} imports {found}"


def test_the_pipeline_knows_neither_dagster_nor_the_command_line() -> None:
    allowed = {"pipeline", *LOWER_LAYERS, "errors", "settings"}
    for name, tree in ALL.items():
        if is_of(name, f"{PACKAGE}.pipeline"):
            names = imports(ast.walk(tree))
            found = {i.split(".")[1] for i in names if i.startswith(f"{PACKAGE}.")}
            assert found <= allowed, f"{name} imports {sorted(found - allowed)}"
            assert not any(is_of(i, "dagster") for i in names), f"{name} imports dagster"


def test_only_the_definitions_import_the_assets_and_only_the_launcher_the_definitions() -> None:
    def importers(package: str) -> set[str]:
        return {name for name, tree in ALL.items() if any(is_of(f, package) for f in imports(ast.walk(tree)))}

    outside = {name for name in importers("assets") if not is_of(name, "assets")}
    assert outside == {f"{PACKAGE}.definitions"}
    assert importers(f"{PACKAGE}.definitions") == {f"{PACKAGE}.commands.launch"}


def test_no_module_imports_a_model_library_before_it_needs_one() -> None:
    found = {
        name: heavy
        for name, tree in ALL.items()
        if (heavy := {i for i in imports(run_at_import(tree)) if any(is_of(i, h) for h in HEAVY)})
    }
    assert found == {}


def test_an_import_inside_a_branch_of_a_module_counts_and_one_inside_a_function_does_not() -> None:
    code = "if True:\n  try:\n    import torch.nn\n  except ImportError: pass\ndef f():\n  import demucs"
    assert imports(run_at_import(ast.parse(code))) == {"torch.nn"}


def loaded_by(code: str, tmp_path: Path) -> set[str]:
    """The libraries that a fresh Python holds after running ``code``, an exit included."""
    watched = ("dagster", *HEAVY)
    program = (
        f"import json, sys\ntry:\n    {code}\nexcept SystemExit as ended:\n    assert not ended.code, ended.code\n"
        f"print('LOADED', json.dumps([name for name in {watched!r} if name in sys.modules]))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BANDSCOPE_")}
    environment |= {"BANDSCOPE_STORAGE": str(tmp_path / "empty"), "DAGSTER_HOME": str(tmp_path)}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, env=environment
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("LOADED ")[2]))


def command(*arguments: str) -> str:
    return f"sys.argv = {['bandscope', *arguments]!r}; from {PACKAGE}.cli import main; main()"


def test_the_code_location_loads_without_the_model_libraries(tmp_path: Path) -> None:
    assert loaded_by(f"import {PACKAGE}.definitions", tmp_path) == {"dagster"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["sql", "SELECT 1 AS one"], ["models", "list"], ["vocabulary"], ["lineage", "--help"]],
    ids=" ".join,
)
def test_commands_that_only_look_start_without_dagster_and_the_model_libraries(
    arguments: list[str], tmp_path: Path
) -> None:
    assert loaded_by(command(*arguments), tmp_path) == set()
