"""Load times of the pages of Dagster's UI, in a real browser, for a home with many songs.

    python -m benchmarks.ui_pages [PAGE …] [--songs N] [--rounds N] [--home DIR] [--pictures DIR] [--plain]

Nothing is computed: the home has only the events of songs, with our tables and checks, as runs of 64 songs report them.
One song in fifty is rejected, and one in five hundred fails in the analysis. With ``--home``, the home stays there, and
the next call uses it again. With ``--pictures``, the pages are saved as pictures. With ``--plain``, the webserver uses
Dagster's own event log.

A page is loaded when the webserver has answered all requests and no new one comes for 2.5 s; some pages ask again
and again for news, so this may come late. The first load and the median of the later ones are printed, with the slowest
requests of the first, and the CPU time of the webserver, which other programs do not change. The last line is JSON.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dagster as dg
import psutil
import yaml
from playwright.sync_api import Page, Request, sync_playwright
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from browser import QUIET, WINDOW, find_browser
from daemon import START_TIMEOUT_S, Home, Webserver, end_group, open_instance, wait_for

from assets.analysis import DEPENDENCIES, analyze
from assets.checks import ANALYSIS_CHECKS, SONG_CHECKS, SONG_IS_USABLE
from assets.songs import songs
from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.partitions import SONGS_NAME, SONGS_PARTITIONS
from bandscope_dagster.orchestration.private_api import AssetCheckEvaluationTargetMaterializationData
from bandscope_dagster.orchestration.run_tags import RANGE_END_TAG, RANGE_START_TAG, search_tags
from bandscope_dagster.orchestration.song_events import Upstream, song_materialization, step_output
from bandscope_dagster.orchestration.steps import raise_failures
from bandscope_dagster.pipeline.outcomes import SongFailed
from benchmarks.event_log import METADATA, PICTURE, SONGS

REJECTED_EVERY, FAILED_EVERY = 50, 500
FAILED: Final = 3  # and every five-hundredth after it
QUIET_S: Final = 2.5  # the UI asks for news every 5 s or later
TIMEOUT_S: Final = 300.0
QUIET_LOG: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
PAGES: Final = {
    "overview": "overview/activity/timeline",
    "graph": "asset-groups?expanded="
    + ",".join(f"global@global:{g}" for g in ("songs", "analysis", "catalog", "pages")),
    "asset": "assets/stems",
    "partitions": "assets/stems?view=partitions",
    "one song": "assets/stems?view=partitions&partition=song-000007",
    "failed song": f"assets/stems?view=partitions&status=FAILED&partition=song-{FAILED:06}",
    "checks": "assets/songs?view=checks",
    "one check": "assets/songs?view=checks&checkDetail=song_is_usable",
    "events": "assets/stems?view=events",
    "runs": "runs",
}


def reported(
    upstream: Upstream, event: dg.AssetMaterialization, specs: list[dg.AssetCheckSpec]
) -> Iterator[Any]:
    """One song's materialization and its checks."""
    yield event
    asset, song = event.asset_key.to_user_string(), event.partition
    assert song is not None
    made, rejected = upstream.made(asset, song), number(song) % REJECTED_EVERY == 0
    assert made is not None
    target = AssetCheckEvaluationTargetMaterializationData(
        storage_id=made.storage_id, run_id=made.run_id, timestamp=made.timestamp
    )
    for spec in specs:
        yield dg.AssetCheckEvaluation(
            asset_key=spec.asset_key,
            check_name=spec.name,
            partition=song,
            passed=not (rejected and spec is SONG_IS_USABLE),
            severity=dg.AssetCheckSeverity.WARN,
            description="truncated: 3 of 10 s can be decoded" if rejected else None,
            target_materialization_data=target,
        )


def number(song: str) -> int:
    """The number in a song's id."""
    return int(song.rpartition("-")[2])


@dg.multi_asset(
    name="songs",
    specs=list(songs.specs),
    check_specs=SONG_CHECKS,
    can_subset=True,
    partitions_def=SONGS_PARTITIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def song_events(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """The events of ``songs`` for each song."""
    upstream = Upstream(context)
    for song in context.partition_keys:
        yield from reported(upstream, song_materialization(song, METADATA), SONG_CHECKS)
    yield step_output("songs")


@dg.multi_asset(
    name="analyze",
    specs=list(analyze.specs),
    check_specs=[spec for specs in ANALYSIS_CHECKS.values() for spec in specs],
    can_subset=True,
    partitions_def=SONGS_PARTITIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def analysis_events(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """The events of ``analyze`` for each song."""
    upstream = Upstream(context)
    failed = [song for song in context.partition_keys if number(song) % FAILED_EVERY == FAILED]
    for song in (each for each in context.partition_keys if each not in failed):
        for table, deps in DEPENDENCIES.items():
            metadata = METADATA | ({"picture": dg.MetadataValue.md(PICTURE)} if table == "stems" else {})
            versions = {"dagster/data_version": "1"} | upstream.version_tags(deps, song)
            event = dg.AssetMaterialization(table, partition=song, metadata=metadata, tags=versions)
            yield from reported(upstream, event, ANALYSIS_CHECKS[table])
        upstream.forget(song)
    causes = [SongFailed(song, CannotAnalyze("failed: OSError: [Errno 5] I/O error")) for song in failed]
    raise_failures(causes, len(context.partition_keys))
    yield from (step_output(table) for table in DEPENDENCIES)


def fill(home: Path, count: int) -> None:
    """Report the events of ``count`` songs in a new home, in runs of 64 songs."""
    job = dg.Definitions(
        assets=[song_events, analysis_events],
        jobs=[dg.define_asset_job("process_songs", list(PER_SONG))],
        executor=dg.in_process_executor,
    ).resolve_job_def("process_songs")
    names = [f"song-{number:06}" for number in range(count)]
    with open_instance(home) as instance:
        instance.add_dynamic_partitions(SONGS_NAME, names)
        for first in track(range(0, count, SONGS), "Events …"):
            part = names[first : first + SONGS]
            tags = {RANGE_START_TAG: part[0], RANGE_END_TAG: part[-1]} | search_tags(part, ["mia"])
            job.execute_in_process(instance=instance, tags=tags, run_config=QUIET_LOG, raise_on_error=False)


@dataclass
class Traffic:
    """The requests of a page to the webserver's GraphQL API."""

    open: dict[Request, float] = field(default_factory=dict[Request, float])
    done: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])  # seconds, name
    last: float = 0.0

    def begun(self, request: Request) -> None:
        """Note the beginning of a request."""
        if "/graphql" in request.url and request.method == "POST":
            self.open[request] = time.monotonic()

    def ended(self, request: Request) -> None:
        """Note the end of a request."""
        if request in self.open:
            self.last = time.monotonic()
            body: dict[str, Any] = json.loads(request.post_data or "{}")
            self.done.append((self.last - self.open.pop(request), str(body.get("operationName"))))


def load(page: Page, url: str) -> tuple[float, list[tuple[float, str]]]:
    """The seconds until a page is loaded, and its requests, the slowest first."""
    traffic = Traffic()
    listeners = {"request": traffic.begun, "requestfinished": traffic.ended, "requestfailed": traffic.ended}
    for name, listener in listeners.items():
        page.on(name, listener)  # type: ignore[call-overload]
    began = traffic.last = time.monotonic()
    page.goto(url)
    while traffic.open or time.monotonic() - traffic.last < QUIET_S or not traffic.done:
        page.wait_for_timeout(50)
        if time.monotonic() - began > TIMEOUT_S:
            raise SystemExit(f"{url} is not loaded after {TIMEOUT_S:g} s")
    for name, listener in listeners.items():
        page.remove_listener(name, listener)
    return traffic.last - began, sorted(traffic.done, reverse=True)


@contextmanager
def webserver(home: Path, store: Path) -> Generator[tuple[str, psutil.Process]]:
    """Run the webserver on a home; gives its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = Path(sys.executable).with_name("dagster-webserver")
    with (home / "webserver.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-m", "bandscope_dagster.definitions", "-h", "127.0.0.1", "-p", port],
            env=os.environ | {"DAGSTER_HOME": str(home), "BANDSCOPE_STORAGE": str(store)},
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        server = Webserver(f"http://127.0.0.1:{port}")
        wait_for("the webserver answers", server.is_up, START_TIMEOUT_S)
        yield server.url, psutil.Process(process.pid)
    finally:
        end_group(process)


def cpu_s(process: psutil.Process) -> float:
    """The CPU seconds of a process until now."""
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    """Make the home, load each page, and print the times."""
    parser = argparse.ArgumentParser(description="Measure the load times of the UI's pages.")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"of {', '.join(PAGES)} (default: all)")
    parser.add_argument("--songs", type=int, default=1500, metavar="N", help="default: 1500")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="loads of each page (default: 3)")
    parser.add_argument("--home", type=Path, metavar="DIR", help="keep the home here, and use it again")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="save pictures of the pages here")
    parser.add_argument("--plain", action="store_true", help="with Dagster's own event log")
    arguments = parser.parse_args()
    report: dict[str, float] = {}
    with ExitStack() as stack:
        folder = arguments.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        if not (folder / "home").exists():
            Home.make(folder / "home", folder / "store", yaml=DAGSTER_YAML)
            fill(folder / "home", arguments.songs)
        config: dict[str, Any] = yaml.safe_load(DAGSTER_YAML)
        if arguments.plain:
            del config["event_log_storage"]
        (folder / "home" / "dagster.yaml").write_text(yaml.safe_dump(config))
        url, server = stack.enter_context(webserver(folder / "home", folder / "store"))
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=find_browser(), args=QUIET
        )
        page = browser.new_page(viewport=WINDOW)
        load(page, f"{url}/deployment/daemons")  # the program of the UI, which the browser keeps
        print(
            f"{arguments.songs} songs, seconds\n"
            f"{'page':12}{'first':>8}{'later':>8}{'CPU':>8}  slowest requests of the first"
        )
        for name in arguments.pages or PAGES:
            before = cpu_s(server)
            loads = [load(page, f"{url}/{PAGES[name]}") for _ in range(arguments.rounds)]
            cpu = (cpu_s(server) - before) / arguments.rounds
            if arguments.pictures:
                page.screenshot(path=arguments.pictures / f"{name.replace(' ', '_')}.png")
            first, later = loads[0][0], statistics.median(seconds for seconds, _ in loads[1:] or loads)
            slowest = ", ".join(f"{operation} {seconds:.2f}" for seconds, operation in loads[0][1][:2])
            print(f"{name:12}{first:8.2f}{later:8.2f}{cpu:8.2f}  {slowest}", flush=True)
            report[f"{name.replace(' ', '_')}_s"] = round(later, 2)
            report[f"{name.replace(' ', '_')}_cpu_s"] = round(cpu, 2)
        browser.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
