"""A real song through the whole graph: the tables are compared with the true stems and with reference code."""

import io
from collections.abc import Iterator
from pathlib import Path

import av
import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
import soundfile
from audio_files import stempeg_song
from instances import new_instance
from numpy.typing import NDArray
from platforms import PER_SONG, Platform, local_settings

from bandscope_dagster.storage.tables.schemas import CATALOG_TABLES, SONG_TABLES, TABLES

SAMPLE_RATE = 44_100  # Hz
NAME = "The Easton Ellises - Falcon 69.stem.mp4"
STREAMS = ("mixture", "drums", "bass", "other", "vocals")

Audio = NDArray[np.float32]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that has materialized every asset for the song."""
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path_factory.mktemp("excerpt"), tagger="musicnn"), instance)
        platform.upload({f"easton/{NAME}": stempeg_song()})
        assert platform.materialize().success
        assert platform.materialize_catalogs().success
        yield platform


@pytest.fixture(scope="module")
def truth() -> dict[str, Audio]:
    """The true stems, float32 of shape (2, frames) at 44.1 kHz, from the streams of the stem file."""
    sources: dict[str, Audio] = {}
    for number, name in enumerate(STREAMS):
        with av.open(io.BytesIO(stempeg_song())) as container:
            frames = container.decode(container.streams.audio[number])
            sources[name] = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    return sources


def sdr(reference: Audio, estimate: Audio) -> float:
    """Signal-to-distortion ratio in dB: 10 log10(Σ s² / Σ (s − ŝ)²), without the first 0.1 s."""
    start = SAMPLE_RATE // 10
    s, e = reference[:, start:].astype(np.float64), estimate[:, start:].astype(np.float64)
    return float(10 * np.log10((s**2).sum() / ((s - e) ** 2).sum()))


def stored(platform: Platform, table: str, stem: str | None = None) -> Audio:
    """Audio as an analyst reads it, with polars, soundfile and the gain column, without our code."""
    frame = pl.read_parquet(f"{platform.store.url}/{table}/*.parquet").sort("block")
    if stem is not None:
        frame = frame.filter(pl.col("stem") == stem)
    blocks = [
        soundfile.read(io.BytesIO(audio["bytes"]), dtype="float32")[0].T * np.float32(gain)
        for audio, gain in frame.select("audio", "gain").iter_rows()
    ]
    return np.concatenate(blocks, axis=1)


def test_the_stored_waveform_is_the_mixture(platform: Platform, truth: dict[str, Audio]) -> None:
    waveform = stored(platform, "decoded_waveforms")
    assert waveform.shape == truth["mixture"].shape
    # Half a step of 16 bits, and float32 rounding. The mixture exceeds full scale, so its block has a gain above 1.
    gain = pl.read_parquet(f"{platform.store.url}/decoded_waveforms/*.parquet")["gain"].max()
    assert 1.0 < gain < 1.1
    assert np.abs(waveform - truth["mixture"]).max() <= 0.505 * gain / 2**15


def test_the_stored_stems_are_as_good_as_the_model(platform: Platform, truth: dict[str, Audio]) -> None:
    accompaniment = truth["drums"] + truth["bass"] + truth["other"]

    assert sdr(truth["vocals"], stored(platform, "stems", "vocals")) >= 4.9
    assert sdr(accompaniment, stored(platform, "stems", "accompaniment")) >= 11.1
    # The unseparated mixture scores clearly lower, so the bounds above are meaningful.
    assert sdr(truth["vocals"], truth["mixture"]) == pytest.approx(-7.1, abs=0.05)
    assert sdr(accompaniment, truth["mixture"]) == pytest.approx(6.9, abs=0.1)


def test_the_stored_tags_are_musicnns(platform: Platform) -> None:
    """The mixture's mean scores over all patches by the reference implementation (measured with TensorFlow)."""
    reference = {"synthesizer": 0.191, "guitar": 0.185, "piano": 0.117}
    tags = platform.table("instrument_tags")
    means = dict(tags.group_by("instrument").agg(pl.col("score").mean()).iter_rows())
    for instrument, score in reference.items():
        assert means[instrument] == pytest.approx(score, abs=0.002)
    assert tags.select("start_s", "end_s").unique().sort("start_s").rows() == [
        (0.0, pytest.approx(2.992)),
        (pytest.approx(2.992), pytest.approx(6.08, abs=0.01)),
    ]


def test_the_separated_vocals_are_heard_as_a_voice_above_all(platform: Platform) -> None:
    catalog = pl.read_parquet(f"{platform.store.url}/instrument_catalog/*.parquet")
    vocals = catalog.filter(source="vocals").sort("score", descending=True)
    assert vocals.row(0, named=True)["family"] == "voice"
    assert vocals.row(0, named=True)["seconds_present"] > 0


@pytest.mark.parametrize("tagger", ["bandscope-instruments", "musicnn"])
def test_the_true_drums_are_heard_as_drums_above_all_and_are_present(
    tagger: str, truth: dict[str, Audio], tmp_path: Path
) -> None:
    file = io.BytesIO()
    soundfile.write(file, truth["drums"].T, SAMPLE_RATE, "FLOAT", format="WAV")
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path, tagger=tagger), instance)
        platform.upload({"drums.wav": file.getvalue()})
        assert platform.materialize(["songs", "instrument_tags"]).success
        assert platform.materialize_catalogs().success
    (song,) = pl.read_parquet(f"{platform.store.url}/song_catalog/*.parquet").iter_rows(named=True)
    assert song["tagger"] == tagger
    best = song["top_instruments"][0]
    assert (best["instrument"], best["seconds"]) == ("drums", pytest.approx(6.08, abs=0.01))


def test_the_song_is_described(platform: Platform) -> None:
    row = platform.table("songs").row(0, named=True)
    assert row["filename"] == NAME
    assert row["owner"] == "easton"
    assert row["codec"] == "aac"
    assert (row["sample_rate"], row["channels"]) == (44_100, 2)
    assert row["duration_s"] == pytest.approx(6.084, abs=0.001)
    assert row["error"] is None


def test_every_table_has_the_columns_that_its_contract_names(platform: Platform) -> None:
    for table in SONG_TABLES:
        frame = pl.read_parquet(f"{platform.store.url}/{table.name}/*.parquet")
        assert frame.columns == list(table.names)
        assert frame.schema == pl.DataFrame(table.schema.empty_table()).schema
        assert frame.height > 0


def test_stored_columns_are_shown_to_dagster(platform: Platform) -> None:
    from bandscope_dagster.definitions import defs

    specs = [spec for spec in defs.resolve_all_asset_specs() if "parquet" in spec.kinds]
    assert len(specs) == len(SONG_TABLES) + len(CATALOG_TABLES)
    for spec in specs:
        shown = [column.name for column in spec.metadata["dagster/column_schema"].columns]
        assert shown == list(TABLES[spec.key.to_user_string()].names)


def test_polars_pandas_and_duckdb_agree(platform: Platform) -> None:
    glob = f"{platform.store.url}/stems/*.parquet"
    sums = "count(*), sum(frames), sum(rms_dbfs::DOUBLE), sum(gain::DOUBLE)"
    by_duckdb = duckdb.sql(f"SELECT {sums} FROM '{glob}'").fetchall()[0]
    numbers = pl.col("rms_dbfs", "gain").cast(pl.Float64).sum()
    by_polars = pl.scan_parquet(glob).select(pl.len(), pl.col("frames").sum(), numbers).collect().row(0)
    files = sorted(Path(platform.store.url, "stems").glob("*.parquet"))
    frame = pd.concat([pd.read_parquet(file) for file in files])
    by_pandas = (
        len(frame),
        frame["frames"].sum(),
        frame["rms_dbfs"].astype("f8").sum(),
        frame["gain"].astype("f8").sum(),
    )

    assert by_duckdb == pytest.approx(by_polars)
    assert by_pandas == pytest.approx(by_polars)
    assert by_polars[:2] == (2, 2 * 268_288)


def test_the_catalog_answers_without_the_other_tables(platform: Platform) -> None:
    catalog = pl.read_parquet(f"{platform.store.url}/song_catalog/*.parquet").row(0, named=True)
    assert catalog["status"] == "ok"
    assert {share["stem"] for share in catalog["stem_energy_share"]} == {"vocals", "accompaniment"}
    assert sum(share["share"] for share in catalog["stem_energy_share"]) == pytest.approx(1)


def test_what_people_look_at_is_there(platform: Platform) -> None:
    song = platform.songs[0]
    shown = {
        "songs": {"filename", "duration_s", "loudness_lufs", "codec", "dagster/uri"},
        "decoded_waveforms": {"dagster/uri", "dagster/partition_row_count", "realtime_factor", "reused"},
        "stems": {"residual_db", "share_vocals", "share_accompaniment", "dagster/uri"},
        "instrument_tags": {"top_instruments", "dagster/uri"},
        "stem_instrument_tags": {"top_instruments", "dagster/uri"},
    }
    for asset in PER_SONG:
        records = platform.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[song]), limit=1
        ).records
        event = records[0].asset_materialization
        assert event is not None
        assert shown[asset] <= set(event.metadata)
