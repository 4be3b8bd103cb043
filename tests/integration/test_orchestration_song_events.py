"""A batch of songs in Dagster's own records: partial success, rejections as data, retries, reuse."""

import hashlib
import io
import json
import signal
import time
from dataclasses import asdict, replace

import dagster as dg
import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from audio_files import LIMITS, encoded, excerpt
from faulty_proxy import FaultyProxy
from instances import new_instance
from platforms import (
    ASSETS,
    PER_SONG,
    SAMPLE_RATE,
    Platform,
    environment,
    local_settings,
    s3_settings,
    song_bytes,
    whole_path,
)
from s3_server import S3Server
from tiny_demucs import FOUR, reference, safetensors_file, tiny_network

from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.flac import decode_flac
from bandscope_dagster.models.inventory import ModelFile, find_model
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.run_tags import RANGE_END_TAG, RANGE_START_TAG
from bandscope_dagster.pipeline import stream as analysis_stream
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES
from bandscope_dagster.separation import registry
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, USED_NOTE, read_lineage, read_note
from bandscope_dagster.storage.tables.schemas import STEMS

GOOD = ("one.wav", "two.wav", "three.wav", "four.wav")
BAD = {"nothing.mp3": "empty", "letter.mp3": "not_audio", "half.mp3": "truncated"}
FLAKY = "flaky.wav"


@pytest.fixture
def platform(s3_server: S3Server, faulty_proxy: FaultyProxy) -> Platform:
    """A platform on S3, behind a proxy that can break requests."""
    place = s3_server.place(faulty_proxy.endpoint)
    settings = s3_settings(place)
    with new_instance() as instance:
        yield Platform(settings, instance)


@pytest.fixture
def ids(platform: Platform) -> dict[str, str]:
    """Eight uploads: four good, three bad, and one whose reads a test can make fail."""
    mp3 = encoded("mp3")
    files = {name: song_bytes(seed) for seed, name in enumerate(GOOD)}
    files |= {
        "nothing.mp3": b"",
        "letter.mp3": b"Dear sir or madam,\n" * 40,
        "half.mp3": mp3[: len(mp3) // 2],
    }
    return platform.upload(files | {FLAKY: song_bytes(9)})


def test_bad_uploads_are_data_and_a_read_that_fails_twice_is_retried(
    platform: Platform, faulty_proxy: FaultyProxy, ids: dict[str, str]
) -> None:
    twice = faulty_proxy.fail(FLAKY, "503", method="GET", times=2)

    result = platform.materialize()

    assert result.success, "no asset fails"
    assert twice.matched == 2
    for asset in PER_SONG:
        assert set(platform.status(asset).values()) == {"MATERIALIZED"}
        assert set(platform.events(result.run_id, asset)) == set(ids.values())
    for asset in PER_SONG:
        errors = dict(platform.table(asset).select("song_id", "error").unique().iter_rows())
        for name in (*GOOD, FLAKY):
            assert errors[ids[name]] is None
        for name, reason in BAD.items():
            prefix = f"{reason}: " if asset == "songs" else f"upstream: {reason}: "
            assert errors[ids[name]].startswith(prefix)
    usable = platform.checks(result.run_id, "song_is_usable")
    assert {song for song, (passed, _) in usable.items() if not passed} == {ids[name] for name in BAD}
    assert {severity for passed, severity in usable.values() if not passed} == {"WARN"}

    platform.materialize_catalogs()
    catalog = platform.table("song_catalog")
    assert dict(catalog["status"].value_counts().iter_rows()) == {"ok": 5, "rejected": 3}
    assert set(platform.table("song_errors")["song_id"]) == {ids[name] for name in BAD}


def test_a_read_that_always_fails_fails_only_that_song(
    platform: Platform, faulty_proxy: FaultyProxy, ids: dict[str, str]
) -> None:
    faulty_proxy.fail(FLAKY, "503", method="GET")

    result = platform.materialize()

    assert not result.success
    withheld = ids[FLAKY]
    assert platform.checks(result.run_id, "song_is_usable")[withheld] == (False, "ERROR")
    for asset in PER_SONG:
        status = platform.status(asset)
        assert status.pop(withheld) == "FAILED"
        assert set(status.values()) == {"MATERIALIZED"}
        assert asset == "songs" or withheld not in set(platform.table(asset)["song_id"])
    attempts = platform.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert not attempts, "a retry in this run would fail again"
    problem = next(
        event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure
    )
    assert "1 of 8 songs failed" in problem.description
    assert withheld in problem.description and "unavailable" in problem.description

    faulty_proxy.heal()
    repaired = platform.materialize(reuse=True)

    assert repaired.success
    for asset in PER_SONG:
        assert set(platform.status(asset).values()) == {"MATERIALIZED"}
        reused = {
            song: event.metadata["reused"].value
            for song, event in platform.events(repaired.run_id, asset).items()
        }
        assert reused == {song: song != withheld for song in ids.values()}


def test_a_retried_step_computes_only_the_unfinished_song(
    platform: Platform, faulty_proxy: FaultyProxy, ids: dict[str, str]
) -> None:
    song = ids["two.wav"]
    # The store itself does not retry this status (403), so the step must be retried.
    refused = faulty_proxy.fail(f"/stems/{song}", "403", method="PUT", times=1)

    result = platform.materialize()

    assert result.success
    assert refused.matched == 1
    retries = platform.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert len(retries) == 1
    for asset in ANALYSIS_TABLES:
        assert set(platform.events(result.run_id, asset)) == set(ids.values())  # each exactly once
    others = [key for method, key in faulty_proxy.requests if method == "PUT" and ids["one.wav"] in key]
    assert len(others) == len(PER_SONG), "the other songs were written once"


def test_a_plain_materialization_recomputes_and_gives_the_same_bytes(tmp_path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({name: song_bytes(seed) for seed, name in enumerate(GOOD[:2])})
        platform.materialize()
        before = platform.digests()

        again = platform.materialize()

        for asset in PER_SONG:
            assert not any(e.metadata["reused"].value for e in platform.events(again.run_id, asset).values())
        assert len(before) == 2 * len(PER_SONG)
        assert platform.digests() == before


def wav(audio: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio.T, SAMPLE_RATE, "PCM_16", format="WAV")
    return file.getvalue()


def test_the_quality_of_a_separation_is_in_dagster_in_the_file_and_in_the_catalog(tmp_path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        ids = platform.upload({"real.wav": wav(excerpt()), "silence.wav": wav(0 * excerpt())})
        run = platform.materialize()
        platform.materialize_catalogs()

        catalog = pl.read_parquet(tmp_path / "song_catalog" / "song_catalog.parquet")
        events = platform.events(run.run_id, "stems")
        for name, silent in (("real.wav", False), ("silence.wav", True)):
            shown = {key: value.value for key, value in events[ids[name]].metadata.items()}
            note = read_note(platform.store, STEMS, ids[name], QUALITY_NOTE)
            assert note is not None and "NaN" not in note and "Infinity" not in note
            quality = SeparationQuality.from_json(note)
            (row,) = catalog.filter(song_id=ids[name]).iter_rows(named=True)
            assert row["residual_db"] == pytest.approx(quality.residual_db)
            assert shown["residual_db"] == pytest.approx(quality.residual_db, abs=0.05)
            assert len(quality.stems) == len(row["stem_quality"]) == 2
            for stem, listed in zip(quality.stems, row["stem_quality"], strict=True):
                assert stem.silent == silent
                assert listed == {
                    key: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
                    for key, value in asdict(stem).items()
                }
                assert shown[f"share_{stem.stem}"] == pytest.approx(stem.share, abs=1e-4)
                assert shown[f"peak_{stem.stem}"] == pytest.approx(stem.peak, abs=1e-4)
                assert shown.get(f"loudness_{stem.stem}") == (
                    None if silent else pytest.approx(stem.loudness_lufs, abs=0.01)
                )
            assert shown.get("silent_stems") == ("vocals, accompaniment" if silent else None)
            assert row["stem_energy_share"] == [
                {"stem": stem.stem, "share": pytest.approx(stem.share, abs=1e-4)}
                for stem in sorted(quality.stems, key=lambda stem: stem.stem)
            ]
        passed = platform.checks(run.run_id, "stems_sum_to_mixture")
        assert {song: passed[song][0] for song in ids.values()} == dict.fromkeys(ids.values(), True)


def test_tags_of_stored_stems_are_those_of_stems_in_memory(tmp_path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({"one.wav": song_bytes(1, seconds=14.0)})
        platform.materialize()
        before = platform.digests()

        alone = platform.materialize(["stem_instrument_tags"])

        assert alone.success
        assert platform.digests() == before


def test_tags_alone_need_no_stems(tmp_path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({"one.wav": song_bytes(1)})

        assert platform.materialize(["songs", "instrument_tags"]).success
        assert platform.table("instrument_tags").height > 0
        assert not list(platform.store.list("stems"))

        failed = platform.materialize(["stem_instrument_tags"])
        problem = next(e.step_failure_data.user_failure_data for e in failed.all_events if e.is_step_failure)
        assert "materialize stems" in problem.description


def test_a_song_is_outdated_only_when_its_own_input_changed(tmp_path) -> None:
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({"one.wav": song_bytes(1), "two.wav": song_bytes(2)})
        platform.materialize()
        platform.materialize(
            ["songs", "decoded_waveforms", "stems"]
        )  # equal, so nothing downstream is outdated

        graph = dg.Definitions(assets=ASSETS, resources=resources(platform.settings)).resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        for asset in ANALYSIS_TABLES:
            for song in platform.songs:
                assert resolver.get_status(dg.AssetKey(asset), song).value == "FRESH"


def test_a_re_execution_from_failure_computes_only_missing_results(
    platform: Platform, faulty_proxy: FaultyProxy, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(platform.settings).items():
        monkeypatch.setenv(name, value)
    song = ids["three.wav"]
    faulty_proxy.fail(f"/instrument_tags/{song}", "403", method="PUT")
    job = dg.reconstructable(whole_path)
    tags = {RANGE_START_TAG: platform.songs[0], RANGE_END_TAG: platform.songs[-1]}
    with dg.execute_job(job, platform.instance, tags=tags) as failed:
        assert not failed.success
    assert platform.status("instrument_tags")[song] == "FAILED"

    faulty_proxy.heal()
    from_failure = dg.ReexecutionOptions.from_failure(failed.run_id, platform.instance)
    with dg.execute_job(job, platform.instance, tags=tags, reexecution_options=from_failure) as again:
        assert again.success

    assert not platform.events(again.run_id, "songs"), "the successful step is not repeated"
    for asset in ANALYSIS_TABLES:
        assert set(platform.status(asset).values()) == {"MATERIALIZED"}
        events = platform.events(again.run_id, asset)
        assert {s for s, event in events.items() if not event.metadata["reused"].value} <= {song}
    written = {key for method, key in faulty_proxy.requests if method == "PUT"}
    assert written and all(song in key for key in written)


def test_an_interrupt_while_dagster_records_an_event_stops_the_step_too(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({"one.wav": song_bytes(1), "two.wav": song_bytes(2)})
        record, interrupts = instance.handle_new_event, []

        def interrupted(event: dg.EventLogEntry, **options) -> None:
            record(event, **options)
            kind = event.dagster_event.event_type if event.dagster_event else None
            if (
                kind == dg.DagsterEventType.ASSET_MATERIALIZATION
                and event.step_key == "analyze"
                and not interrupts
            ):
                interrupts.append(event)
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(instance, "handle_new_event", interrupted)
        result = platform.materialize()

        assert interrupts and not result.success
        assert not instance.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
        assert sorted(platform.status("decoded_waveforms").values()) == ["FAILED", "MATERIALIZED"]
        patience = time.monotonic() + 300  # the models' thread ends after its current block
        while list((tmp_path / ".pending").iterdir()):
            assert time.monotonic() < patience, "an incomplete file is left"
            time.sleep(0.05)


DEMUCS = tiny_network(segment=2**16)


@pytest.fixture
def tiny_htdemucs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with ``htdemucs``, which the inventory lists as a tiny network in the models folder."""
    content = safetensors_file(DEMUCS)
    listed = replace(
        find_model("htdemucs"),
        files=(ModelFile("tiny.safetensors", len(content), hashlib.sha256(content).hexdigest()),),
    )
    monkeypatch.setattr(registry, "find_model", lambda name: listed)
    folder = tmp_path / "models" / "htdemucs"
    folder.mkdir(parents=True)
    (folder / "tiny.safetensors").write_bytes(content)
    return local_settings(
        tmp_path / "store",
        separator="htdemucs",
        models_folder=str(tmp_path / "models"),
        batch=2,
        flac_bits=24,
    )


def test_the_stems_of_demucs_equal_those_of_apply_model(tiny_htdemucs: Settings) -> None:
    with new_instance() as instance:
        platform = Platform(tiny_htdemucs, instance)
        ids = platform.upload({"real.wav": wav(excerpt()), "short.wav": song_bytes(1, 1.0)})
        run = platform.materialize()
        assert run.success

        decoded = list(decode(io.BytesIO(wav(excerpt())), LIMITS))
        mixture = torch.from_numpy(np.concatenate(decoded, axis=1))
        mono = mixture.mean(0)
        mean, std = mono.mean(), mono.std() + 1e-8
        wanted = reference((mixture - mean) / std, tiny_network(segment=2**16)) * std + mean
        rows = platform.table("stems").filter(song_id=ids["real.wav"])
        assert set(rows["model"]) == {"htdemucs"}
        for stem, expected in zip(FOUR, wanted.numpy(), strict=True):
            blocks = rows.filter(stem=stem).sort("block")
            stored = np.concatenate(
                [decode_flac(row["audio"]["bytes"], row["gain"]) for row in blocks.iter_rows(named=True)],
                axis=1,
            )
            np.testing.assert_allclose(stored, expected, rtol=0, atol=1e-6)  # FLAC with 24 bits

        lineage = read_lineage(platform.store, STEMS, ids["real.wav"])
        assert lineage is not None
        params = json.loads(lineage.params)
        assert (params["segment_frames"], params["overlap"], params["shifts"]) == (2**16, 0.25, 0)
        used = json.loads(read_note(platform.store, STEMS, ids["real.wav"], USED_NOTE) or "")
        assert used == {"device": "cpu", "batch": 2, "segment": 2**16}
        shown = platform.events(run.run_id, "stems")[ids["real.wav"]].metadata
        assert (shown["device"].value, shown["batch"].value, shown["segment_s"].value) == ("cpu", 2, 1.49)


@pytest.mark.parametrize(
    "change", [{"shifts": 1}, {"overlap": 0.5}, {"segment_s": 1.0}, {"precision": "bf16"}]
)
def test_a_setting_that_changes_the_stems_recomputes_them_and_the_batch_size_does_not(
    tiny_htdemucs: Settings, change: dict[str, object]
) -> None:
    with new_instance() as instance:
        platform = Platform(tiny_htdemucs, instance)
        (song,) = platform.upload({"a.wav": song_bytes(0, 2.0)}).values()
        platform.materialize(["songs", "stems"])
        for settings, reused in (
            (tiny_htdemucs.model_copy(update={"batch": 3}), True),
            (tiny_htdemucs.model_copy(update=change), False),
        ):
            run = Platform(settings, instance).materialize(["stems"], reuse=True)
            assert platform.events(run.run_id, "stems")[song].metadata["reused"].value is reused


def test_wrong_weights_end_the_step_at_once_and_no_audio_is_read(
    tiny_htdemucs: Settings, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "htdemucs" / "tiny.safetensors").write_bytes(b"other weights")
    with new_instance() as instance:
        platform = Platform(tiny_htdemucs, instance)
        platform.upload({"a.wav": song_bytes(0, 2.0)})
        assert platform.materialize(["songs"]).success
        monkeypatch.setattr(analysis_stream, "fetch_upload", pytest.fail)
        run = platform.materialize(ANALYSIS_TABLES)
        assert not run.success
        failures = [event for event in run.all_events if event.is_step_failure]
        assert "tiny.safetensors of model htdemucs is not the file in the inventory" in str(
            failures[0].step_failure_data
        )
        assert "bandscope models pull htdemucs" in str(failures[0].step_failure_data)
        assert not [event for event in run.all_events if event.is_step_up_for_retry]
