"""The structure of the code, by its syntax trees: which room may import which, no circles, short modules."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from slow_files import SLOW_FILES
from syntax_trees import ALL, HEAVY, PACKAGE, ROOT, imported_by, importers, imports, is_of, run_at_import

MAX_LINES = 300

STORAGE = {"storage.objects", "storage.tables"}

# Room → the rooms that it imports. Each is above it in this list: an import never runs upwards.
# Imports in functions and for type checkers count too.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "allocator": set(),
    "device": {"errors"},
    "audio": {"errors"},
    "models": {"errors"},
    "storage.objects": {"errors"},
    "storage.tables": {"errors", "storage.objects"},
    "separation": {"errors", "allocator", "device", "audio", "models"},
    "tagging": {"errors", "device", "audio", "models"},
    "pictures": {"audio"},
    "settings": {"errors", "audio", "storage.objects", "separation", "tagging"},
    "input_digests": {"models", "storage.tables"},
    "songs": {"errors", "audio", "separation", "tagging", "input_digests"} | STORAGE,
    "describing": {"errors", "models", "separation", "tagging", "songs"} | STORAGE,
    "exporting": {"errors", "audio", "separation", "songs"} | STORAGE,
    "pages": {"errors", "audio", "separation", "pictures", "songs"} | STORAGE,
    "pipeline": {"errors", "allocator", "audio", "models", "separation", "tagging", "pictures"}
    | {"settings", "input_digests", "songs"}
    | STORAGE,
    "catalogs": {"errors", "songs", "input_digests", "pipeline"} | STORAGE,
    "orchestration": {"errors", "allocator", "device", "models", "separation", "tagging"}
    | {"settings", "input_digests", "songs", "pipeline"}
    | STORAGE,
    "event_log": {"orchestration"},
    "results": {"orchestration"},
    "assets": {"audio", "separation", "tagging", "pictures", "settings"}
    | {"songs", "catalogs", "pages", "pipeline", "orchestration"}
    | STORAGE,
    "definitions": {"settings", "orchestration", "assets"},
    "cli": {"errors", "allocator", "device", "models", "separation", "tagging", "exporting", "settings"}
    | {"describing", "songs", "catalogs", "pages", "pipeline", "orchestration", "definitions"}
    | STORAGE,
}


def room_of(module: str) -> str | None:
    """The room of one of our modules; None for packages that only hold rooms, and for other libraries."""
    inner = module.removeprefix(f"{PACKAGE}.")
    return next((room for room in ROOMS if is_of(inner, room)), None)


OWN = {name: imported_by(name) & ALL.keys() for name in ALL}
"""Module → the modules of ours that it imports anywhere."""


def test_every_module_is_in_a_room() -> None:
    only_docstrings = {PACKAGE, f"{PACKAGE}.storage"}
    assert {name for name in ALL if room_of(name) is None} == only_docstrings
    for name in only_docstrings:
        assert len(ALL[name].body) == 1 and ast.get_docstring(ALL[name]), name


def test_rooms_are_in_the_order_of_their_imports() -> None:
    names = list(ROOMS)
    for index, room in enumerate(names):
        assert ROOMS[room] <= set(names[:index]), f"{room} may import a room that is not above it in the list"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_the_list_says_and_nothing_else(room: str) -> None:
    found = {
        f"{name} imports {other}": other_room
        for name in ALL
        if room_of(name) == room
        for other in OWN[name]
        if (other_room := room_of(other)) not in (room, None)
    }
    assert {text for text, other in found.items() if other not in ROOMS[room]} == set()
    assert ROOMS[room] - set(found.values()) == set(), "the list allows more than the room needs"


def test_only_rooms_above_the_pipeline_know_dagster() -> None:
    knowing = importers("dagster") | importers("dagster_ray") | importers("dagster_k8s")
    assert {room_of(name) for name in knowing} == {"orchestration", "assets", "definitions", "cli"}
    assert {name for name in knowing if room_of(name) == "cli"} == {
        f"{PACKAGE}.cli.{name}"
        for name in (
            *("execute_run", "forget", "run", "status_registered", "status_remarks", "watch", "watch_runs"),
        )
    }


def test_only_the_definitions_import_the_assets_and_only_execute_run_the_definitions() -> None:
    assert importers("assets") == {f"{PACKAGE}.definitions"}
    assert importers(f"{PACKAGE}.definitions") == {f"{PACKAGE}.cli.execute_run"}


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """A circle of modules in a graph, if it has one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(OWN) is None


def test_a_circle_through_three_modules_is_found() -> None:
    found = circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert found is not None and set(found) == {"a", "b", "c"}


@pytest.mark.parametrize("name", ALL)
def test_a_module_is_short_and_opens_with_a_docstring(name: str) -> None:
    path = ROOT / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert ast.get_docstring(ALL[name])


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


def test_every_slow_file_exists() -> None:
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(SLOW_FILES) <= files
    assert len(set(SLOW_FILES)) == len(SLOW_FILES)


def test_no_test_imports_another_test() -> None:
    found = {
        f"{path.name}: {line.strip()}"
        for path in Path(ROOT / "tests").rglob("*.py")
        for line in path.read_text().splitlines()
        if re.match(r"\s*(from|import)\s.*\b(test_\w+|conftest)\b", line)
    }
    assert found == set()


@pytest.mark.parametrize("folder", ["unit", "integration"])
def test_a_folder_of_tests_holds_only_test_files(folder: str) -> None:
    found = {path.name for path in (ROOT / "tests" / folder).rglob("*.py")}
    assert {name for name in found if not name.startswith("test_")} == set()


REAL_PARTS = {"subprocess", "multiprocessing", "daemon", "s3_server", "faulty_proxy", "counting_proxy"} | {
    *("tiny_demucs", "tiny_omni", "tiny_ast", "transformers"),
    *(
        "hub_server",
        "postgres",
        "ray_cluster",
        "command_processes",
        "browser",
        "page_browser",
        "pseudo_terminal",
    ),
}
"""Modules that start processes and servers, or have models. Test files that import one are in tests/integration."""

REAL_MODELS = {"Instruments", "Musicnn", "Spleeter", "load_separator", "load_tagger"}
"""Names that load weights from the package."""


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests" / "unit").glob("test_*.py")), ids=lambda path: path.stem
)
def test_a_unit_test_starts_nothing_and_loads_no_embedded_model(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    fixtures = {arg.arg for each in functions if each.name.startswith("test_") for arg in each.args.args}
    fixtures -= {each.name for each in functions}  # those of this file; tests/conftest.py has the others
    called = {
        node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert imports(nodes) & REAL_PARTS == set()
    assert fixtures & {"s3_server", "faulty_proxy", "store"} == set()
    assert called & REAL_MODELS == set()
