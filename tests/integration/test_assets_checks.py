"""Asset checks: their results for a song, their target materialization, and that they stop nothing."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import soundfile
from faulty_proxy import FaultyProxy
from instances import new_instance
from platforms import PER_SONG, SAMPLE_RATE, Platform, local_settings, s3_settings, song_bytes
from s3_server import S3Server
from song_rows import lineage

from assets.checks import ANALYSIS_CHECKS, SONG_CHECKS, analysis_checks, song_checks
from bandscope_dagster.audio.levels import FULL_SCALE, at_full_scale
from bandscope_dagster.pipeline.outcomes import SongAnalyzed
from bandscope_dagster.pipeline.plan import SongPlan
from bandscope_dagster.pipeline.validate import SongChecked
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.songs.stored_files import StoredFile
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, TAGS_NOTE
from bandscope_dagster.tagging.summary import TagSummary

SONG = "song-0123456789ab"
WHOLE = StoredFile(lineage(SONG), {}, frames=SAMPLE_RATE, faults=())
QUALITY = SeparationQuality(-40.0, ())
TAGS = TagSummary(10, 0, 100, 9, {}, "cpu", 1)

Verdicts = dict[str, tuple[bool, str, str | None]]


def verdicts(evaluations: Iterator[dg.AssetCheckEvaluation]) -> Verdicts:
    """Check → (passed, severity, description); fails if a check comes twice or is of another song."""
    found: Verdicts = {}
    for evaluation in evaluations:
        assert evaluation.partition == SONG and evaluation.check_name not in found
        found[evaluation.check_name] = (evaluation.passed, evaluation.severity.value, evaluation.description)
    return found


def checked(error: str | None = None, clipped_share: float | None = 0.0, **quality: Any) -> Verdicts:
    row = {"error": error, "bad_packets": 0, "lost_s": 0.0, "warning": None} | quality
    return verdicts(song_checks(SongChecked(SONG, row, 1.0, clipped_share), None))


def analyzed(
    table: str, *, kept: StoredFile | None = None, rejected: str | None = None, **facts: Any
) -> Verdicts:
    keep = {} if kept is None else {table: kept}
    compute = {table: lineage(SONG)} if kept is None else {}
    plan = SongPlan(SONG, "ab" * 32, "uploads/a.wav", 1.0, compute, keep, rejected=rejected)
    return verdicts(analysis_checks(SongAnalyzed(plan, {}, 1.0, **facts), table, None))


def test_a_rejection_warns_and_a_failure_is_an_error() -> None:
    assert checked()["song_is_usable"] == (True, "WARN", None)
    assert checked("empty: no bytes", None)["song_is_usable"] == (False, "WARN", "empty: no bytes")
    for error in ("unavailable: not there", "failed: OSError: full"):
        assert checked(error, None)["song_is_usable"] == (False, "ERROR", error)


def test_a_damaged_song_warns_and_a_row_of_before_is_not_judged() -> None:
    assert checked()["song_is_undamaged"] == (True, "WARN", None)
    said = "2 packets are damaged"
    assert checked(bad_packets=2, warning=said)["song_is_undamaged"] == (False, "WARN", said)
    assert checked("empty: no bytes", None)["song_is_undamaged"][:2] == (True, "WARN")
    assert "song_is_undamaged" not in checked(bad_packets=None)


@pytest.mark.parametrize(("share", "passed"), [(0.0, True), (0.0009, True), (0.001, False), (1.0, False)])
def test_an_upload_with_clipping_warns(share: float, passed: bool) -> None:
    said = None if passed else f"{share:.2%} of the samples are clipped"
    assert checked(clipped_share=share)["song_is_not_clipped"] == (passed, "WARN", said)


def test_full_scale_is_that_of_16_bits_in_both_directions() -> None:
    block = np.zeros((2, 8), np.float32)
    block[0, :4] = [FULL_SCALE, 1.2, 32766 / 32768, 0.5]
    block[1, :4] = [-1.0, -1.2, -FULL_SCALE, -32766 / 32768]
    assert at_full_scale(block) == 5
    assert at_full_scale(block[:, 4:]) == at_full_scale(block[:, :0]) == 0


@pytest.mark.parametrize("table", ["decoded_waveforms", "stems"])
def test_a_file_that_breaks_the_schema_is_an_error(table: str) -> None:
    def of(found: StoredFile | Exception) -> tuple[bool, str, str | None]:
        return analyzed(table, read_back={table: found})["blocks_are_whole"]

    assert of(WHOLE)[0] and of(WHOLE)[2] is None
    assert of(replace(WHOLE, faults=("one", "two"))) == (False, "ERROR", "one; two")
    assert of(replace(WHOLE, frames=44_000)) == (
        False,
        "ERROR",
        "its blocks hold 44,000 frames, and the song 44,100",
    )
    assert of(FileNotFoundError("gone")) == (False, "ERROR", "the file could not be read back: gone")


@pytest.mark.parametrize(("residual_db", "passed"), [(-200.0, True), (-20.0, True), (-19.9, False)])
def test_stems_that_do_not_add_up_warn(residual_db: float, passed: bool) -> None:
    facts = {"read_back": {"stems": WHOLE}, "quality": replace(QUALITY, residual_db=residual_db)}
    said = None if passed else f"the residual is {residual_db:.1f} dB of the mixture"
    assert analyzed("stems", **facts)["stems_sum_to_mixture"] == (passed, "WARN", said)


@pytest.mark.parametrize(
    ("tags", "wrong"),
    [
        (TAGS, None),
        (replace(TAGS, unmapped=10), "the vocabulary does not know 10 of 100 labels"),
        (replace(TAGS, lost=1), "1 of 10 windows have an error instead of tags"),
        (replace(TAGS, labels=0, unmapped=0), None),
    ],
)
def test_unknown_labels_and_lost_windows_warn(tags: TagSummary, wrong: str | None) -> None:
    found = analyzed("stem_instrument_tags", tags={"stem_instrument_tags": tags})
    assert found == {"tags_are_complete": (wrong is None, "WARN", wrong)}


def test_a_kept_file_is_checked_by_the_notes_in_it() -> None:
    bad = {QUALITY_NOTE: replace(QUALITY, residual_db=-3.0).to_json()}
    found = analyzed("stems", kept=replace(WHOLE, notes=bad, faults=("a gap",)))
    assert found["stems_sum_to_mixture"][0] is False and found["blocks_are_whole"][2] == "a gap"

    lost = {TAGS_NOTE: replace(TAGS, lost=2).to_json()}
    found = analyzed("instrument_tags", kept=replace(WHOLE, notes=lost, frames=None))
    assert found["tags_are_complete"][:2] == (False, "WARN")


def test_a_kept_file_without_notes_has_no_check_result() -> None:
    assert analyzed("stems", kept=WHOLE).keys() == {"blocks_are_whole"}
    assert analyzed("instrument_tags", kept=WHOLE) == {}
    assert checked(clipped_share=None, bad_packets=None).keys() == {"song_is_usable"}


def test_a_rejected_song_has_only_its_rejection() -> None:
    assert checked("empty: no bytes", None)["song_is_not_clipped"][:2] == (True, "WARN")
    for table, specs in ANALYSIS_CHECKS.items():
        found = analyzed(table, rejected="empty: no bytes")
        assert found.keys() == {spec.name for spec in specs}
        for passed, _, description in found.values():
            assert passed and description == "nothing to check: empty: no bytes"


def test_no_check_blocks_and_each_has_a_description() -> None:
    for spec in [*SONG_CHECKS, *(spec for specs in ANALYSIS_CHECKS.values() for spec in specs)]:
        assert not spec.blocking
        assert spec.description and spec.partitions_def is not None


def clipped_song() -> bytes:
    """A second of a tone that is cut at full scale for most of its time."""
    tone = np.clip(3 * np.sin(2 * np.pi * 220 * np.arange(SAMPLE_RATE) / SAMPLE_RATE), -1, 1)
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone, tone], axis=1), SAMPLE_RATE, "PCM_16", format="WAV")
    return file.getvalue()


def shown(platform: Platform) -> dict[str, dict[str, set[str]]]:
    """Check (``asset.name``) → status → songs, as the UI shows it for each partition."""
    from dagster._core.definitions.partitions.context import partition_loading_context

    from bandscope_dagster.orchestration.partitions import SONGS_PARTITIONS

    found: dict[str, dict[str, set[str]]] = {}
    for spec in [*SONG_CHECKS, *(spec for specs in ANALYSIS_CHECKS.values() for spec in specs)]:
        with partition_loading_context(dynamic_partitions_store=platform.instance):
            storage = platform.instance.event_log_storage
            state = storage.get_asset_check_state([(spec.key, SONGS_PARTITIONS)])[spec.key]
            found[f"{spec.asset_key.to_user_string()}.{spec.name}"] = {
                status.value: set(subset.value.get_partition_keys())
                for status, subset in state.subsets.items()
                if subset.size
            }
    return found


def test_the_ui_shows_every_check_of_every_song_also_of_kept_songs(tmp_path: Path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        ids = platform.upload(
            {"fine.wav": song_bytes(1, 0.6), "clipped.wav": clipped_song(), "empty.wav": b""}
        )
        expected = {
            f"{asset}.{spec.name}": {"SUCCEEDED": set(ids.values())}
            for asset, specs in {"songs": SONG_CHECKS, **ANALYSIS_CHECKS}.items()
            for spec in specs
        }
        for name, refused in (("song_is_usable", "empty.wav"), ("song_is_not_clipped", "clipped.wav")):
            expected[f"songs.{name}"] = {
                "SUCCEEDED": set(ids.values()) - {ids[refused]},
                "FAILED": {ids[refused]},
            }

        assert platform.materialize().success
        assert shown(platform) == expected

        assert platform.materialize(reuse=True).success
        assert shown(platform) == expected


def test_a_file_that_cannot_be_read_back_fails_its_check_and_stops_nothing(
    s3_server: S3Server, faulty_proxy: FaultyProxy
) -> None:
    place = s3_server.place(faulty_proxy.endpoint)
    settings = s3_settings(place)
    with new_instance() as instance:
        platform = Platform(settings, instance)
        ids = platform.upload({"one.wav": song_bytes(1, 0.6), "two.wav": song_bytes(2, 0.6)})
        faulty_proxy.fail(f"/stems/{ids['one.wav']}", "403", method="GET")

        run = platform.materialize()

        assert run.success
        for asset in PER_SONG:
            assert set(platform.status(asset).values()) == {"MATERIALIZED"}
        found = shown(platform)
        assert found["stems.blocks_are_whole"] == {"SUCCEEDED": {ids["two.wav"]}, "FAILED": {ids["one.wav"]}}
        assert found["decoded_waveforms.blocks_are_whole"] == {"SUCCEEDED": set(ids.values())}
        read = [path for method, path in faulty_proxy.requests if method == "GET" and "/stems/" in path]
        assert len(read) <= 2, "one range of each file is read back"
