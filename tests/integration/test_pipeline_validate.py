"""The ``songs`` step: the row of a real song, rejections as data, uploads that cannot be read, and reuse."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audio_files import ENCODERS, encode, encoded, excerpt

from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.cli.ingest import find_files, ingest
from bandscope_dagster.errors import is_failure
from bandscope_dagster.pipeline.plan import SongPlanner
from bandscope_dagster.pipeline.uploads import AUDIO_SUFFIXES, Upload, list_uploads
from bandscope_dagster.pipeline.validate import SongChecked, check_songs
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_tables import read_table

LIMITS = Limits(max_bytes=10_000_000)
TAGS = {"title": "Falcon 69", "artist": "The Easton Ellises", "album": "EP", "genre": "Electronic"}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def put(store: ObjectStore, files: Mapping[str, bytes]) -> dict[str, Upload]:
    """Song id → upload, in the order of ``files``."""
    for name, data in files.items():
        with store.create(f"uploads/{name}") as pending:
            pending.write(data)
    by_key = {upload.key: upload for upload in list_uploads(store).uploads}
    return {by_key[f"uploads/{name}"].song_id: by_key[f"uploads/{name}"] for name in files}


def check(
    store: ObjectStore,
    uploads: Mapping[str, Upload],
    songs: list[str] | None = None,
    *,
    limits: Limits = LIMITS,
    reuse: bool = False,
    run_id: str = "run",
) -> list[SongChecked]:
    planner = SongPlanner(run_id=run_id)
    return list(check_songs(songs or list(uploads), uploads, store, limits, planner, reuse=reuse))


def short(seconds: float) -> bytes:
    return encode(excerpt()[:, : round(seconds * 44_100)], "wav", "pcm_s16le")


def test_a_real_song_becomes_a_row_that_describes_it(store: ObjectStore) -> None:
    data = encode(excerpt(), "flac", "flac", tags=TAGS)
    uploads = put(store, {"mia/Falcon 69.flac": data})
    [song] = check(store, uploads)
    table = read_table(store, SONGS, song.song_id)
    assert table is not None
    [row] = table.to_pylist()
    assert song.error is None and song.written is not None

    upload = uploads[song.song_id]
    assert (row["filename"], row["owner"], row["upload_key"]) == ("Falcon 69.flac", "mia", upload.key)
    assert (row["uploaded_at"], row["size_bytes"]) == (upload.uploaded_at, len(data))
    assert row["song_hash"] == hashlib.sha256(data).hexdigest()
    assert {name: row[name] for name in TAGS} == TAGS
    assert (row["container"], row["codec"]) == ("flac", "flac")
    assert (row["sample_rate"], row["channels"]) == (44_100, 2)
    assert row["bit_rate"] == pytest.approx(len(data) * 8 / row["duration_s"], rel=0.1)

    audio = excerpt().astype(np.float64)
    mono = audio.mean(axis=0)
    assert row["frames"] == audio.shape[1]
    assert row["duration_s"] == audio.shape[1] / 44_100
    assert row["peak"] == pytest.approx(np.abs(audio).max(), abs=2**-15)
    assert row["mono_mean"] == pytest.approx(mono.mean(), abs=2**-15)
    assert row["mono_std"] == pytest.approx(mono.std(ddof=1), rel=1e-3)
    assert row["rms_dbfs"] == pytest.approx(10 * np.log10(np.mean(audio**2)), abs=0.01)
    assert row["loudness_lufs"] == pytest.approx(-19.4, abs=0.2)
    assert row["error"] is None


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        (lambda: b"", LIMITS, "empty"),
        (lambda: b"Dear sir or madam,\n" * 40, LIMITS, "not_audio"),
        (lambda: encoded("mp3")[:60_000], LIMITS, "truncated"),
        (lambda: short(0.3), LIMITS, "too_short"),
        (lambda: short(2.0), replace(LIMITS, max_duration_s=1.0), "too_long"),
        (lambda: short(2.0), replace(LIMITS, max_bytes=100_000), "too_large"),
        (lambda: short(2.0), replace(LIMITS, max_sample_rate=22_050), "unsupported_format"),
        (lambda: short(2.0), replace(LIMITS, max_channels=1), "unsupported_format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_upload_is_a_row_that_says_why(data, limits: Limits, reason: str, store: ObjectStore) -> None:
    uploads = put(store, {"mia/bad.mp3": data()})
    [song] = check(store, uploads, limits=limits)
    table = read_table(store, SONGS, song.song_id)
    assert table is not None
    [row] = table.to_pylist()
    assert row["error"].startswith(f"{reason}: ")
    assert song.error == row["error"] and not is_failure(song.error)
    assert (row["filename"], row["owner"], row["size_bytes"]) == ("bad.mp3", "mia", len(data()))
    assert row["frames"] is None and row["loudness_lufs"] is None, "no half of a measure"


def test_results_come_in_the_order_of_the_songs_and_bad_ones_stop_nobody(store: ObjectStore) -> None:
    uploads = put(store, {"d.wav": short(3.0), "c.wav": b"", "b.wav": short(1.0), "a.wav": short(0.1)})
    songs = check(store, uploads)
    assert [song.song_id for song in songs] == list(uploads)
    assert [song.error and song.error.partition(":")[0] for song in songs] == [
        None,
        "empty",
        None,
        "too_short",
    ]


def test_an_upload_that_is_not_listed_is_unavailable(store: ObjectStore) -> None:
    [song] = check(store, {}, ["gone-0123456789ab"])
    assert (
        song.error is not None and song.error.startswith("unavailable: ") and "Upload it again" in song.error
    )
    assert song.row["song_id"] == "gone-0123456789ab" and song.row["filename"] is None


def test_an_upload_that_goes_after_the_listing_is_unavailable(store: ObjectStore) -> None:
    uploads = put(store, {"a.wav": short(1.0)})
    store.delete("uploads/a.wav")
    [song] = check(store, uploads)
    assert is_failure(song.error) and song.row["filename"] == "a.wav" and song.row["song_hash"] is None


def test_the_lineage_names_the_content_the_limits_and_the_run(store: ObjectStore) -> None:
    uploads = put(store, {"a.wav": short(1.0)})
    [song] = check(store, uploads, run_id="run-7")
    lineage = read_lineage(store, SONGS, song.song_id)
    assert lineage is not None
    assert (lineage.song_hash, lineage.run_id) == (song.row["song_hash"], "run-7")
    assert lineage.params.startswith('{"max_bytes": 10000000, ') and lineage.model == ""


def test_a_stored_row_is_kept_on_reuse_and_made_again_without(store: ObjectStore) -> None:
    uploads = put(store, {"a.wav": short(1.0), "empty.wav": b""})
    first = check(store, uploads)
    again = check(store, uploads, reuse=True)
    assert all(song.reused for song in again), "a rejection is as permanent as a result"
    for name in ("song_hash", "frames", "error"):
        assert [song.row[name] for song in again] == [song.row[name] for song in first]
    assert not any(song.reused for song in check(store, uploads))


def test_under_other_limits_nothing_is_kept(store: ObjectStore) -> None:
    uploads = put(store, {"a.wav": short(1.0)})
    check(store, uploads)
    [song] = check(store, uploads, reuse=True, limits=replace(LIMITS, max_duration_s=0.9))
    assert not song.reused and str(song.error).startswith("too_long: ")


def test_of_another_code_version_nothing_is_kept(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = put(store, {"a.wav": short(1.0)})
    check(store, uploads)
    monkeypatch.setattr("bandscope_dagster.input_digests.CODE_VERSIONS", {"songs": "another"})
    [song] = check(store, uploads, reuse=True)
    assert not song.reused


def test_an_unavailable_song_is_always_tried_again(store: ObjectStore) -> None:
    uploads = put(store, {"a.wav": short(1.0)})
    [unlisted] = check(store, {}, list(uploads))
    assert is_failure(unlisted.error)
    [song] = check(store, uploads, reuse=True)
    assert not song.reused and song.error is None


def test_a_row_that_cannot_be_written_fails_its_song_alone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    uploads = put(store, {"a.wav": short(1.0), "b.wav": short(1.5)})
    blocked, other = uploads
    (tmp_path / "songs" / f"{blocked}.parquet").mkdir(parents=True)  # a folder where the file belongs

    songs = {song.song_id: song for song in check(store, uploads)}

    assert str(songs[blocked].error).startswith("failed: ") and songs[blocked].written is None
    assert songs[other].error is None and songs[other].written is not None


def test_an_upload_that_was_replaced_after_the_listing_is_not_this_song(store: ObjectStore) -> None:
    listed = put(store, {"a.wav": short(1.0)})
    [new] = put(store, {"a.wav": short(2.0)})
    [old_song] = check(store, listed)
    assert not is_failure(old_song.error) and str(old_song.error).startswith("replaced: ")
    assert old_song.row["song_hash"] is None and old_song.row["frames"] is None
    [new_song] = check(store, list_uploads(store).by_song)
    assert new_song.song_id == new != old_song.song_id
    assert new_song.error is None and new_song.row["frames"] == 2 * 44_100


def test_a_damaged_song_has_its_damage_in_its_row(store: ObjectStore) -> None:
    song = bytearray(encode(np.tile(excerpt(), 2), "flac", "flac"))
    song[len(song) // 2] ^= 0xFF
    uploads = put(store, {"damaged.flac": bytes(song), "whole.flac": encoded("flac")})
    damaged, whole = check(store, uploads)
    assert damaged.error is None and damaged.row["frames"] == 2 * 268_288
    assert damaged.row["bad_packets"] == 1
    assert damaged.row["lost_s"] == pytest.approx(4608 / 44_100, abs=1e-6)
    assert damaged.row["warning"].startswith("1 packet is damaged; 0.10 s of silence")
    quality = ("bad_packets", "lost_s", "warning", "audio_stream", "audio_streams")
    assert [whole.row[name] for name in quality] == [0, 0.0, None, 1, 1]


def test_a_rejected_row_has_the_duration_that_was_decoded(store: ObjectStore) -> None:
    [song] = check(store, put(store, {"cut.flac": encoded("flac")[: len(encoded("flac")) // 2]}))
    assert str(song.error).startswith("truncated: ")
    assert 2.5 < song.row["duration_s"] < 3.5 and song.row["warning"] is None


FORMATS_OF_SUFFIXES = {
    "wav16": ".wav .wave .bwf .rf64",
    "w64": ".w64",
    "aiff": ".aif .aifc .aiff",
    "caf": ".caf",
    "flac": ".flac",
    "vorbis": ".ogg .oga .ogv",
    "opus": ".opus",
    "mp3": ".mp3 .mpga",
    "mp2": ".mp2",
    "m4a_aac": ".m4a .m4b .m4r .m4v .mp4",
    "m4a_alac": ".alac",
    "mov": ".mov .qt",
    "3gp": ".3gp .3g2",
    "adts": ".aac .adts",
    "wma": ".wma .asf .wmv",
    "matroska": ".mka .mkv",
    "webm": ".webm",
    "wavpack": ".wv",
}
OTHER_ENCODERS = {
    "mp2": ("mp2", "mp2", 44_100),
    "mov": ("mov", "pcm_s16le", 44_100),
    "3gp": ("3gp", "aac", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "wavpack": ("wv", "wavpack", 44_100),
}


def test_a_file_of_every_suffix_is_ingested_and_becomes_a_song(store: ObjectStore, tmp_path: Path) -> None:
    suffixes = {suffix: name for name, several in FORMATS_OF_SUFFIXES.items() for suffix in several.split()}
    assert suffixes.keys() == AUDIO_SUFFIXES
    (tmp_path / "album").mkdir()
    for suffix, name in suffixes.items():
        muxer, encoder, rate = OTHER_ENCODERS.get(name) or ENCODERS[name]
        data = encode(excerpt(), muxer, encoder, rate=rate) if name in OTHER_ENCODERS else encoded(name)
        (tmp_path / f"album/song{suffix.upper()}").write_bytes(data)
    found = find_files([tmp_path / "album"], None)
    assert not found.left_out and not found.passed_over
    for file in found.files:
        ingest(store, file, replace=False)
    uploads = list_uploads(store).by_song
    assert len(uploads) == len(suffixes)
    errors = {uploads[song.song_id].filename: song.error for song in check(store, uploads)}
    assert {name: error for name, error in errors.items() if error} == {}
