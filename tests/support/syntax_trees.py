"""The repository's files, and the syntax trees and imports of the package and the assets; nothing is imported."""

import ast
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "bandscope_dagster"
HEAVY = ("torch", "torchaudio", "transformers", "demucs", "safetensors.torch", "scipy", "pyloudnorm")
"""Libraries that take about a second or more to import, so that a module imports them where it needs them."""


def _modules(*packages: str) -> dict[str, ast.Module]:
    files = sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(), str(path)
        )
        for path in files
    }


ALL = _modules(PACKAGE, "assets")
"""Dotted name → syntax tree of every module; a package has its own name, without ``__init__``."""


def own_files() -> list[Path]:
    """All files of the repository: none of git, of caches, of environments, or of builds."""
    left_out = {"__pycache__", "node_modules", "build", "dist", "demo", "local_stack", "fuzzing-defects"}
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in left_out and not name.startswith(".")]
        found += [Path(folder) / name for name in names]
    return sorted(found)


def is_of(name: str, package: str) -> bool:
    """True if the module is the package or in it."""
    return name == package or name.startswith(f"{package}.")


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Every name in import statements; ``from a import b`` gives ``a.b`` if that is a module of ours, else ``a``."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in ALL else str(node.module) for name in full}
    return names


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when the module is imported: not those in functions or under ``TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from run_at_import(child)


@cache
def imported_by(module: str) -> set[str]:
    """Every name that a module of ours imports, functions included."""
    return imports(ast.walk(ALL[module]))


def importers(package: str) -> set[str]:
    """The modules outside a package that import something of it, functions included."""
    return {
        name
        for name in ALL
        if not is_of(name, package) and any(is_of(found, package) for found in imported_by(name))
    }
