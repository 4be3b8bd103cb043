"""Processes short songs, one of them broken, in a whole deployment: from `bandscope ingest` to the catalog."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import polars as pl

from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.sensors.new_uploads import UPLOADS_SENSOR
from bandscope_dagster.pipeline.uploads import UPLOADS, list_uploads
from bandscope_dagster.settings import Settings
from deploy.servers.dagster_servers import Refused, Webserver
from scripts.demo_songs import SAMPLE_RATE, render, write

SONG_S: Final = 4.0
WHOLE: Final = ("first.wav", "second.flac")
BROKEN: Final = "cut in the middle.flac"
CATALOGS_SENSOR: Final = "refresh_catalogs_after_runs"
TICK_TIMEOUT_S: Final = 90.0  # the daemon evaluates every sensor within a few seconds
SONGS_TIMEOUT_S: Final = 300.0
CATALOG_TIMEOUT_S: Final = 180.0  # its sensor has a tick every 60 s, and starts a run
CATALOG: Final = "song_catalog"


class SmokeFailure(Exception):
    """The deployment does not work; the message says which part."""


class Wait(Protocol):
    """Waits for a condition, and checks meanwhile that every server runs."""

    def __call__(self, what: str, ready: Callable[[], object], timeout_s: float) -> None:
        """Wait until ``ready`` is true; raise after ``timeout_s`` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class SmokeBatch:
    """Songs of an owner without other songs."""

    settings: Settings  # of the deployment's store
    webserver: Webserver
    owner: str

    def upload(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Render the songs into ``folder``, and upload them with the ``bandscope`` of ``environment``."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(WHOLE):
            title, stems = render(number)
            mixture = np.sum(list(stems.values()), axis=0)
            write(folder / name, mixture[:, : round(SONG_S * SAMPLE_RATE)], title)
        whole = (folder / WHOLE[-1]).read_bytes()
        (folder / BROKEN).write_bytes(whole[: len(whole) // 2])
        program = Path(sys.executable).with_name("bandscope")
        done = subprocess.run(
            [program, "ingest", folder, "--owner", self.owner],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            printed = done.stdout + done.stderr
            raise SmokeFailure(f"`bandscope ingest` ended with code {done.returncode}: {printed}")

    def process(self, wait: Wait) -> None:
        """Turn the sensor for uploads on, and wait until its run has materialized all songs."""
        before = self._runs(UPLOADS_SENSOR)
        self.webserver.turn_on(UPLOADS_SENSOR)
        songs = self._songs()
        if len(songs) != len(WHOLE) + 1:
            raise SmokeFailure(
                f"{len(WHOLE) + 1} songs were uploaded, and the store lists {len(songs)} of them"
            )

        def are_done() -> bool:
            self._check_runs(UPLOADS_SENSOR, before)
            return all(self.webserver.materialized(asset, songs) == set(songs) for asset in PER_SONG)

        wait(
            f"a tick of {UPLOADS_SENSOR} requests a run",
            lambda: self._runs(UPLOADS_SENSOR).keys() - before.keys(),
            TICK_TIMEOUT_S,
        )
        wait(f"{len(songs)} songs are materialized in {len(PER_SONG)} assets", are_done, SONGS_TIMEOUT_S)

    def await_catalogs(self, wait: Wait) -> None:
        """Wait until the catalogs' sensor has refreshed them with these songs."""
        wanted = set(self._songs())

        def are_refreshed() -> bool:
            self._check_runs(CATALOGS_SENSOR, {})
            return "SUCCESS" in self._runs(CATALOGS_SENSOR).values() and wanted <= set(self._ids())

        wait(f"{CATALOGS_SENSOR} refreshes the catalogs", are_refreshed, CATALOG_TIMEOUT_S)

    def findings(self) -> pl.DataFrame:
        """The rows of these songs in the catalog on S3, sorted by ``filename``.

        Raises:
            SmokeFailure: a song has another status than expected.
        """
        songs = read_catalog(self.settings).filter(pl.col("song_id").is_in(self._songs()))
        states = dict(songs.select("filename", "status").iter_rows())
        expected = dict.fromkeys(WHOLE, "ok") | {BROKEN: "rejected"}
        if states != expected:
            raise SmokeFailure(f"the songs have the states {states} in the catalog; expected: {expected}")
        return songs.sort("filename")

    def check_read_only(self, read_only: Webserver) -> str:
        """Check that the read-only webserver refuses to turn a sensor on; returns its answer."""
        try:
            read_only.turn_on(UPLOADS_SENSOR)
        except Refused as refused:
            return str(refused)
        raise SmokeFailure("the read-only webserver turned a sensor on")

    def _songs(self) -> list[str]:
        """The ids of these songs."""
        uploads = list_uploads(self.settings.open_store()).uploads
        return [each.song_id for each in uploads if each.key.startswith(f"{UPLOADS}/{self.owner}/")]

    def _ids(self) -> list[str]:
        """The ids of all songs in the catalog; none before it exists."""
        store = self.settings.open_store()
        return read_catalog(self.settings)["song_id"].to_list() if any(store.list(CATALOG)) else []

    def _runs(self, sensor: str) -> dict[str, str]:
        return {run["runId"]: run["status"] for run in self.webserver.runs(sensor=sensor)}

    def _check_runs(self, sensor: str, before: Mapping[str, str]) -> None:
        for run, status in self._runs(sensor).items():
            if run not in before and status in ("FAILURE", "CANCELED"):
                raise SmokeFailure(f"{status}: {self.webserver.url}/runs/{run}, which {sensor} had requested")


def read_catalog(settings: Settings) -> pl.DataFrame:
    """The songs' catalog, as an analyst reads it from S3 (docs/queries.md)."""
    secret = settings.s3_secret_access_key
    options = {
        "aws_endpoint_url": settings.s3_endpoint or "",
        "aws_region": settings.s3_region,
        "aws_access_key_id": settings.s3_access_key_id or "",
        "aws_secret_access_key": secret.get_secret_value() if secret else "",
        "aws_allow_http": "true",
    }
    return pl.read_parquet(f"{settings.storage}/{CATALOG}/*.parquet", storage_options=options)
