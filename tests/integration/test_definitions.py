"""The code location: the graph, the facts that the UI shows on every asset, and no side effect of an import."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml
from daemon import START_TIMEOUT_S, Webserver, end_group, wait_for

from bandscope_dagster.definitions import defs
from bandscope_dagster.orchestration.partitions import SONGS_PARTITIONS
from bandscope_dagster.storage.tables.schemas import TABLES
from deploy.servers.processes import free_ports

ROOT = Path(__file__).parents[2]
GRAPH = {
    "uploads": set(),
    "songs": {"uploads"},
    "decoded_waveforms": {"songs"},
    "stems": {"songs", "decoded_waveforms"},
    "instrument_tags": {"songs", "decoded_waveforms"},
    "stem_instrument_tags": {"songs", "stems"},
    "song_catalog": {"instrument_tags", "stem_instrument_tags"},
    "instrument_catalog": {"instrument_tags", "stem_instrument_tags"},
    "song_errors": {"instrument_tags", "stem_instrument_tags"},
    "song_pages": {"songs", "stems", "instrument_tags", "stem_instrument_tags"},
}
CATALOGS = {"song_catalog", "instrument_catalog", "song_errors"}


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    """The specs of all assets, by name."""
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_the_graph(specs: dict[str, dg.AssetSpec]) -> None:
    assert {
        name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in specs.items()
    } == GRAPH


def test_every_asset_is_described(specs: dict[str, dg.AssetSpec]) -> None:
    page = specs["song_pages"]
    assert page.description and page.group_name == "pages" and page.kinds == {"html"}
    assert page.owners and page.code_version
    assert specs["uploads"].description and specs["uploads"].group_name == "songs"
    for name in specs.keys() - {"song_pages", "uploads"}:
        spec = specs[name]
        assert spec.description == TABLES[name].description
        assert spec.group_name in {"songs", "analysis", "catalog"}
        assert "parquet" in spec.kinds and len(spec.kinds) == 2
        assert spec.owners and spec.code_version
        assert len(spec.metadata["dagster/column_schema"].columns) == len(TABLES[name].columns)


def test_every_song_is_a_partition_of_every_per_song_asset(specs: dict[str, dg.AssetSpec]) -> None:
    for name, spec in specs.items():
        assert spec.partitions_def == (None if name in {*CATALOGS, "uploads"} else SONGS_PARTITIONS)


def test_analyze_requests_a_gpu_and_retries_with_backoff() -> None:
    analyze = defs.resolve_assets_def("stems")
    assert analyze.op.pool == "gpu"
    assert analyze.op.tags["dagster-k8s/config"] is not None
    assert '"num_gpus": 1' in str(analyze.op.tags["dagster-ray/config"]).replace("'", '"')
    policy = analyze.op.retry_policy
    assert policy is not None and policy.max_retries == 2
    assert policy.backoff == dg.Backoff.EXPONENTIAL and policy.jitter == dg.Jitter.PLUS_MINUS
    assert analyze.backfill_policy == defs.resolve_assets_def("songs").backfill_policy
    assert analyze.backfill_policy == dg.BackfillPolicy.multi_run(64)


def test_the_catalogs_say_when_they_are_too_old(specs: dict[str, dg.AssetSpec]) -> None:
    for name, spec in specs.items():
        assert (spec.freshness_policy is not None) == (name in CATALOGS)


def test_jobs_and_sensors_have_names_and_descriptions() -> None:
    jobs = {
        "process_songs",
        "validate_songs",
        "tag_songs",
        "separate_songs",
        "write_pages",
        "refresh_catalogs",
        "retry_songs",
        "update_outdated_songs",
    }
    assert {job.name for job in defs.jobs or ()} == jobs
    sensors = {sensor.name: sensor for sensor in defs.sensors or ()}
    assert sensors["new_uploads"].job_name == "process_songs"
    assert sensors["refresh_catalogs_after_runs"].job_name == "refresh_catalogs"
    for described in (*(defs.jobs or ()), *sensors.values()):
        assert described.description


def test_the_code_location_loads_without_a_warning() -> None:
    code = "from bandscope_dagster.definitions import defs; defs.get_repository_def().load_all_definitions()"
    loaded = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr


IMPORT = """
import ctypes, os, sys
called = []
sys.addaudithook(lambda event, details: called.append(details[1]) if event == "ctypes.dlsym" else None)
import polars  # sets _RJEM_MALLOC_CONF, for its own allocator
before = dict(os.environ)
import bandscope_dagster.definitions
changed = {name for name in before.keys() | os.environ if before.get(name) != os.environ.get(name)}
assert not changed, f"changed variables: {changed}"
assert not {"mallopt", "malloc_trim"} & set(called), "the allocator was set"
ctypes.CDLL(None).malloc_trim
assert "malloc_trim" in called, "the hook sees such a call"
"""


def test_importing_the_code_location_leaves_the_environment_and_the_allocator_alone() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    loaded = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, env=environment)
    assert loaded.returncode == 0, loaded.stderr


def test_dg_and_workspace_yaml_load_one_location_of_one_name() -> None:
    # Dagster keeps the state of sensors by the location's name; by default dg names it after the folder.
    (entry,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    project = tool["dg"]["project"]
    assert {entry["python_module"], project["code_location_target_module"]} == {
        tool["dagster"]["module_name"]
    }
    assert project["code_location_name"] == entry["python_module"]


def test_dg_dev_starts_the_ui_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with (tmp_path / "log").open("wb") as log:
        dev = subprocess.Popen(
            [Path(sys.executable).with_name("dg"), "dev", "--port", str(port)],
            cwd=ROOT,
            env=os.environ | {"DAGSTER_HOME": str(tmp_path), "BANDSCOPE_STORAGE": str(tmp_path / "store")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for("the UI has loaded the code", Webserver(f"http://127.0.0.1:{port}").is_up, START_TIMEOUT_S)
        os.killpg(dev.pid, signal.SIGINT)
        assert dev.wait(60) == 0, (tmp_path / "log").read_text()
    finally:
        end_group(dev)
