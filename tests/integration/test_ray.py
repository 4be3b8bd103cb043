"""Real Ray clusters: steps wait for a GPU, run on two nodes and survive the loss of one; the tables are the same."""

import io
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import dagster as dg
import polars as pl
import pytest
import yaml
from daemon import Home, wait_for
from long_forms import quick_or_long
from platforms import PER_SONG, Platform, environment, s3_settings, song_bytes
from postgres import run_postgres
from ray.autoscaler._private.util import prepare_config, validate_config
from ray_cluster import RayCluster, free_ports, run_ray_cluster
from s3_server import S3Server
from same_tables import assert_same_tables

from bandscope_dagster.orchestration.run_tags import RANGE_END_TAG, RANGE_START_TAG

T = TypeVar("T")

DEPLOY = Path(__file__).parents[2] / "deploy" / "ray"
PATIENCE_S = 600
SONGS = quick_or_long(12, long=40)
SONGS_PER_RUN = SONGS // 2  # a batch for each node


def at_work(cluster: RayCluster, op: str) -> dict[str, str]:
    """Node name → run id, for each node on which a step of an op has begun."""
    alive = cluster.alive()
    jobs = [(job, job.metadata or {}) for job in cluster.client().list_jobs() if job.driver_node_id in alive]
    return {
        alive[job.driver_node_id]: labels["dagster/run-id"]
        for job, labels in jobs
        if labels.get("dagster/op") == op
    }


def ray_job(instance: dg.DagsterInstance, op: str) -> str | None:
    """The Ray job of an op's step, as the run's log and so the UI name it."""
    for run in instance.get_runs():
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_WORKER_STARTING):
            found = re.search(r"in Ray job (\S+)\.", entry.message)
            if entry.step_key == op and found:
                return found[1]
    return None


def patiently(what: str, found: Callable[[], T | None]) -> T:
    """Wait with few questions, so that the cluster has the two cores of a small machine."""
    return wait_for(what, found, PATIENCE_S, every_s=2)


def songs_in(platform: Platform, table: str) -> set[str]:
    """The songs in a table."""
    return {Path(found.key).stem for found in platform.store.list(table)}


def done_of(platform: Platform, run_id: str) -> set[str]:
    """The songs of a run that are done."""
    run = platform.instance.get_run_by_id(run_id)
    assert run is not None
    first, last = (platform.songs.index(run.tags[tag]) for tag in (RANGE_START_TAG, RANGE_END_TAG))
    return songs_in(platform, "stem_instrument_tags").intersection(platform.songs[first : last + 1])


def all_done(platform: Platform) -> bool:
    """True if Dagster shows every song of every asset as materialized."""
    return all(Counter(platform.status(asset).values()) == {"MATERIALIZED": SONGS} for asset in PER_SONG)


def ended(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun] | None:
    """The runs over songs, once all of them have ended."""
    runs = [run for run in instance.get_runs() if run.job_name == "process_songs"]
    return runs if all(run.is_finished for run in runs) else None


def in_catalog(platform: Platform) -> set[str]:
    """The songs in the catalog."""
    found = [entry.key for entry in platform.store.list("song_catalog")]
    return set(pl.read_parquet(io.BytesIO(platform.store.read(found[0])))["song_id"]) if found else set()


@pytest.fixture
def at_ray(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of every process on a cluster, also set here."""
    variables = {
        "OMP_NUM_THREADS": "1",  # the nodes share two cores
        "TEST_SENSORS": "new_uploads catalogs",
        "RAY_ADDRESS": f"http://127.0.0.1:{free_ports(1)[0]}",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def test_a_step_waits_for_a_gpu_then_a_batch_runs_on_each_node_and_all_songs_are_done_though_one_dies(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, at_ray: dict[str, str]
) -> None:
    settings = s3_settings(s3_server.place())
    uploads = {f"song {number}.wav": song_bytes(number, seconds=1.0) for number in range(SONGS)}
    with run_postgres() as postgres:
        variables = at_ray | postgres.database().environment() | environment(settings)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        home = Home.make(
            tmp_path / "home",
            tmp_path / "unused",
            yaml=(DEPLOY / "dagster.yaml").read_text(),
            variables=variables,
            executor="ray",
            gpus=1,  # for the cluster to count; the models compute on the CPU
            songs_per_run=SONGS_PER_RUN,
            step_retries=2,
            step_retry_delay_s=1,
        )
        with run_ray_cluster(home.environment, gpus=0) as cluster, home.instance() as instance:
            platform = Platform(settings, instance)
            instance.event_log_storage.set_concurrency_slots("gpu", 2)
            for name, data in uploads.items():
                with platform.store.create(f"uploads/{name}") as pending:
                    pending.write(data)
            with home.daemon():
                job = patiently("the run's log names the job", lambda: ray_job(instance, "analyze"))
                patiently(
                    "Ray has the job", lambda: job in {j.submission_id for j in cluster.client().list_jobs()}
                )
                for _ in range(5):
                    assert cluster.client().get_job_status(job) == "PENDING"
                    time.sleep(2)
                assert songs_in(platform, "songs") and not songs_in(platform, "instrument_tags")

                cluster.join("one", "two", gpus=1)
                patiently("each node works", lambda: {"one", "two"} <= at_work(cluster, "analyze").keys())
                batch = at_work(cluster, "analyze")["two"]
                patiently("the second has done songs", lambda: done_of(platform, batch))
                cluster.kill("two")
                assert len(done_of(platform, batch)) < SONGS_PER_RUN, "in the middle of its batch"

                patiently("all songs are done", lambda: all_done(platform))
                patiently("the catalogs hold them", lambda: in_catalog(platform) == set(platform.songs))
                runs = patiently("both runs have ended", lambda: ended(instance))
            assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2
            for run in runs:
                for asset in PER_SONG:
                    platform.events(run.run_id, asset)  # none twice

    with dg.DagsterInstance.ephemeral() as calm:
        local = Platform(s3_settings(s3_server.place()), calm)
        local.upload(uploads)
        assert local.materialize().success
        assert_same_tables(platform, local, but=["uploaded_at"])


def test_ray_accepts_the_cluster_file() -> None:
    config = prepare_config(yaml.safe_load((DEPLOY / "cluster.yaml").read_text()))
    validate_config(config)
    assert "--num-gpus 0" in config["head_start_ray_commands"][-1], "no step with models runs on the head"
