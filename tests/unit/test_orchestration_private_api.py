"""Private names of Dagster: all in one module, each with the feature that needs it, and none removed by an upgrade."""

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PRIVATE_API = ROOT / "bandscope_dagster" / "orchestration" / "private_api.py"


class PrivateName(NamedTuple):
    """A name that ``private_api`` imports, and the comment above the import."""

    module: str
    name: str
    feature: str


def imported_modules(path: Path) -> set[str]:
    """All modules that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_private(name: str) -> bool:
    """True if a dotted name is inside a Dagster package and has a part with a leading underscore."""
    package, *parts = name.split(".")
    return package.startswith("dagster") and any(part.startswith("_") for part in parts)


def private_names() -> list[PrivateName]:
    """Every imported name of ``private_api``, from its syntax tree: importing it fails if a name is gone."""
    source = PRIVATE_API.read_text()
    lines = source.splitlines()
    return [
        PrivateName(str(node.module), alias.name, lines[node.lineno - 2].removeprefix("# "))
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


FEATURES = {"Checks", "Dead runs", "The event log", "The retry backfill", "The steps over songs"}

EVENT_LOG = ("dagster._core.storage.event_log.sqlite.sqlite_event_log", "SqliteEventLogStorage")
INSTANCE = ("dagster", "DagsterInstance")

# Members without a public promise, which need no import.
MEMBERS: dict[str, tuple[tuple[str, str], str]] = {
    **dict.fromkeys(
        (
            "_connect",
            "_has_asset_key_col_on_connection",
            "_initdb",
            "add_dynamic_partitions",
            "conn_string_for_shard",
            "delete_dynamic_partition",
            "get_dynamic_partitions",
            "has_table",
            "wipe",
        ),
        (EVENT_LOG, "The event log: SqliteEventLog overrides or calls it."),
    ),
    "from_ref": (INSTANCE, "`bandscope run --watch`: an instance without compute logs."),
    "get_yaml_python_handlers": (INSTANCE, "`bandscope run --watch`: it must not configure logging."),
    "get_ref": (INSTANCE, "`bandscope run --watch`: an instance without compute logs."),
    "add_backfill": (INSTANCE, "The retry backfill: submits the request."),
    "all_logs": (INSTANCE, "Dead runs: reads the events of a run."),
    "daemon_cursor_storage": (INSTANCE, "The results webhook: stores what is delivered."),
    "event_log_storage": (INSTANCE, "Results: SQLite stores events in order."),
    "get_asset_event_summary_records": (INSTANCE, "Results: reads what is stored, without its metadata."),
    "get_asset_partitions_for_run": (INSTANCE, "Results: the tables and songs of a run."),
    "get_backfills": (INSTANCE, "The retry backfill: finds an earlier one."),
    "get_daemon_heartbeats": (INSTANCE, "`bandscope run` and `retry`: find a running daemon."),
    "optimize_for_webserver": (INSTANCE, "Steps: keep connections to PostgreSQL open."),
    "report_run_failed": (INSTANCE, "Dead runs: marks them as failed."),
    "run_launcher": (INSTANCE, "Dead runs: run processes are on this machine."),
    "run_storage": (INSTANCE, "Dead runs: one machine uses the home."),
}


def resolve(module: str, name: str, feature: str) -> Any:
    """The object; fails the test with the feature that needs it if Dagster no longer has it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        version = importlib.import_module("dagster").__version__
        pytest.fail(f"{module}.{name} is gone from dagster {version}. Needed for: {feature} ({error})")


def test_no_other_module_imports_a_private_name() -> None:
    modules = [*(ROOT / "bandscope_dagster").rglob("*.py"), *(ROOT / "assets").rglob("*.py")]
    found = {
        str(path.relative_to(ROOT)): private
        for path in modules
        if path != PRIVATE_API and (private := {name for name in imported_modules(path) if is_private(name)})
    }
    assert len(modules) > 100 and found == {}, "import private names in orchestration/private_api.py only"


def test_private_imports_are_found() -> None:
    assert is_private("dagster._core.launcher.DefaultRunLauncher") and is_private("dagster_ray._base.x")
    assert is_private("dagster._check") and not is_private("dagster.DagsterInstance")
    assert any(is_private(name) for name in imported_modules(PRIVATE_API))


@pytest.mark.parametrize("private", private_names(), ids=lambda private: private.name)
def test_dagster_still_has_the_private_name(private: PrivateName) -> None:
    resolve(*private)


def test_a_name_that_is_gone_is_reported_with_the_feature_that_needs_it() -> None:
    gone = r"dagster\._core\.{}.* is gone .*Needed for: Dead runs: something"
    with pytest.raises(pytest.fail.Exception, match=gone.format(r"launcher\.OldLauncher")):
        resolve("dagster._core.launcher", "OldLauncher", "Dead runs: something.")
    with pytest.raises(pytest.fail.Exception, match=gone.format("old_module")):
        resolve("dagster._core.old_module", "Old", "Dead runs: something.")


@pytest.mark.parametrize("private", private_names(), ids=lambda private: private.name)
def test_the_feature_that_needs_a_private_name_is_documented(private: PrivateName) -> None:
    feature, _, use = private.feature.partition(": ")
    assert feature in FEATURES and use.endswith(".")
    assert is_private(f"{private.module}.{private.name}")


@pytest.mark.parametrize("member", MEMBERS)
def test_dagster_still_has_the_undocumented_member(member: str) -> None:
    (module, owner), feature = MEMBERS[member]
    assert hasattr(resolve(module, owner, feature), member), (
        f"{owner}.{member} is gone. Needed for: {feature}"
    )


def test_the_event_log_reads_the_base_class_by_the_same_attributes(tmp_path: Path) -> None:
    base = resolve(*EVENT_LOG, "The event log.")(str(tmp_path))
    for attribute in ("_db_lock", "_initialized_dbs"):
        assert hasattr(base, attribute), f"{attribute} is gone. Needed for: the event log"
    assert list(inspect.signature(base._initdb).parameters) == ["engine", "for_index_shard"]
    assert list(inspect.signature(base._connect).parameters) == ["shard"]
