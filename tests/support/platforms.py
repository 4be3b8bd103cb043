"""A whole platform for a test: a store with uploads, a Dagster instance, and its records."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import soundfile
from s3_server import S3Place

from assets.analysis import analyze
from assets.catalog import catalogs
from assets.pages import song_pages
from assets.songs import songs
from bandscope_dagster.orchestration.partitions import SONGS_NAME, SONGS_PARTITIONS, register_uploads
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.run_tags import RANGE_END_TAG, RANGE_START_TAG, REUSE_TAG
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import Settings, load_settings

SAMPLE_RATE = 44_100  # Hz
PER_SONG = ("songs", *ANALYSIS_TABLES)
ASSETS = [songs, analyze, catalogs, song_pages]
# Columns with the time and the maker of a row, which differ between equal results.
WHEN = ("detected_at", "since")


def song_bytes(seed: int, seconds: float = 1.0) -> bytes:
    """A small song as 16-bit WAV: a chord that fades in and out over noise; different for each seed."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    root = 110.0 * 2 ** (seed % 12 / 12)
    chord = (
        sum(np.sin(2 * np.pi * root * ratio * time) for ratio in (1, 1.25, 1.5)) * np.sin(np.pi * time) ** 2
    )
    mono = 0.2 * chord + 0.02 * random.standard_normal(len(time))
    file = io.BytesIO()
    soundfile.write(file, np.stack([mono, 0.8 * mono], axis=1), SAMPLE_RATE, "PCM_16", format="WAV")
    return file.getvalue()


@dataclass
class Platform:
    """Bandscope over one store and one Dagster instance."""

    settings: Settings
    instance: dg.DagsterInstance

    @cached_property
    def store(self):
        """The object store of the settings."""
        return self.settings.open_store()

    def upload(self, files: Mapping[str, bytes]) -> dict[str, str]:
        """Put files into uploads/ and register them, in order; returns name → song id."""
        for name, data in files.items():
            with self.store.create(f"uploads/{name}") as pending:
                pending.write(data)
            register_uploads(self.instance, list_uploads(self.store))
        return {
            upload.key.removeprefix("uploads/"): upload.song_id for upload in list_uploads(self.store).uploads
        }

    @property
    def songs(self) -> list[str]:
        """All song ids, in the order of registration."""
        return list(self.instance.get_dynamic_partitions(SONGS_NAME))

    def materialize(
        self, assets: Sequence[str] = PER_SONG, *, reuse: bool = False, tags: Mapping[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Run ``assets`` for all songs."""
        ranged = {RANGE_START_TAG: self.songs[0], RANGE_END_TAG: self.songs[-1]} if self.songs else {}
        return dg.materialize(
            ASSETS,
            instance=self.instance,
            resources=resources(self.settings),
            selection=list(assets),
            tags=ranged | ({REUSE_TAG: "true"} if reuse else {}) | dict(tags or {}),
            raise_on_error=False,
        )

    def materialize_catalogs(self) -> dg.ExecuteInProcessResult:
        """Run the catalogs."""
        return dg.materialize(
            ASSETS,
            instance=self.instance,
            resources=resources(self.settings),
            selection=["song_catalog", "instrument_catalog", "song_errors"],
        )

    def status(self, asset: str) -> dict[str, str]:
        """Song id → the status in Dagster: MATERIALIZED, FAILED, IN_PROGRESS or MISSING."""
        found = self.instance.get_status_by_partition(dg.AssetKey(asset), self.songs, SONGS_PARTITIONS) or {}
        return {song: status.value if (status := found.get(song)) else "MISSING" for song in self.songs}

    def events(self, run_id: str, asset: str) -> dict[str, dg.AssetMaterialization]:
        """Song id → the materialization in a run; fails if a song has two."""
        entries = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        found = [entry.asset_materialization for entry in entries]
        events = [m for m in found if m is not None and m.asset_key == dg.AssetKey(asset)]
        assert len({event.partition for event in events}) == len(events), (
            f"{asset}: a song was reported twice"
        )
        return {str(event.partition): event for event in events}

    def checks(self, run_id: str, name: str) -> dict[str, tuple[bool, str]]:
        """Song id → (passed, severity) of a check in a run."""
        entries = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        checks = [entry.dagster_event.asset_check_evaluation_data for entry in entries if entry.dagster_event]
        return {
            str(check.partition): (check.passed, check.severity.value)
            for check in checks
            if check.check_name == name
        }

    def table(self, name: str) -> pl.DataFrame:
        """All rows of a per-song table."""
        keys = [found.key for found in self.store.list(name)]
        frames = [pl.read_parquet(io.BytesIO(self.store.read(key))) for key in sorted(keys)]
        return pl.concat(frames)

    def digests(self) -> dict[str, str]:
        """Key of every per-song file → SHA-256 over its data columns, to the last byte."""
        digests: dict[str, str] = {}
        for table in PER_SONG:
            for found in self.store.list(table):
                frame = pl.read_parquet(io.BytesIO(self.store.read(found.key)))
                data = io.BytesIO()
                frame.drop(WHEN, strict=False).write_ipc(data)
                digests[found.key] = hashlib.sha256(data.getvalue()).hexdigest()
        return digests


@contextmanager
def calm_platform(storage: Any) -> Iterator[Platform]:
    """The platform over a local store, after an undisturbed run over all of its uploads in this process."""
    with dg.DagsterInstance.ephemeral() as instance:
        calm = Platform(local_settings(storage), instance)
        register_uploads(instance, list_uploads(calm.store))
        assert calm.materialize().success
        assert calm.materialize_catalogs().success
        yield calm


def keys(assets: Sequence[str]) -> list[dg.AssetKey]:
    """The keys of assets, by name."""
    return [dg.AssetKey(asset) for asset in assets]


def whole_path() -> dg.JobDefinition:
    """The per-song assets as a job, with the settings of the environment; another process can load it by name."""
    definitions = dg.Definitions(
        assets=ASSETS,
        jobs=[dg.define_asset_job("whole_path", keys(PER_SONG))],
        resources=resources(load_settings()),
        executor=dg.in_process_executor,
    )
    return definitions.resolve_job_def("whole_path")


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables for these settings of an S3 store."""
    secret = settings.s3_secret_access_key
    return {
        "BANDSCOPE_STORAGE": settings.storage,
        "BANDSCOPE_S3_ENDPOINT": settings.s3_endpoint or "",
        "BANDSCOPE_S3_ACCESS_KEY_ID": settings.s3_access_key_id or "",
        "BANDSCOPE_S3_SECRET_ACCESS_KEY": secret.get_secret_value() if secret else "",
        "BANDSCOPE_DEVICE": settings.device,
    }


def local_settings(folder: Any, **changes: Any) -> Settings:
    """Settings for a store in a local folder."""
    return Settings(storage=str(folder), device="cpu", **changes)


def s3_settings(place: S3Place) -> Settings:
    """Settings for a bucket and prefix on the S3 server."""
    return Settings(
        storage=place.url,
        s3_endpoint=place.endpoint,
        s3_access_key_id=place.access_key_id,
        s3_secret_access_key=place.secret_access_key,
        device="cpu",
    )
