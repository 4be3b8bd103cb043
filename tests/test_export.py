"""Export: a song's stems as files at their true level, that add up to the song; whole, or not at all."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
import soundfile
from audio_files import encode, excerpt
from command_line import CommandLine
from platforms import Platform, local_settings
from song_rows import block_rows, lineage, song_row

from bandscope_dagster.audio.flac import decode_flac
from bandscope_dagster.commands.export import INSTRUMENT_COLUMNS, ExportError, export_song
from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.storage.audio_tables import AudioTableWriter, read_blocks
from bandscope_dagster.storage.objects import ObjectStore, open_store
from bandscope_dagster.storage.schemas import DECODED_WAVEFORMS, SONGS, STEMS
from bandscope_dagster.storage.tables import write_error_row, write_table

LOUDER = 4.0  # the excerpt times this passes full scale, and so does its accompaniment
STEPS = 2.0**-16  # half a step of 16 bits: what rounding one stored source may lose
STEM_NAMES = ["accompaniment", "vocals"]


@dataclass(frozen=True, slots=True)
class Separated:
    """A store with a real song as it is, a loud one, and a rejected one."""

    store: ObjectStore
    song: str
    loud: str
    rejected: str


@pytest.fixture(scope="module")
def separated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Separated]:
    with dg.instance_for_test() as instance:
        platform = Platform(local_settings(tmp_path_factory.mktemp("export")), instance)
        loud = excerpt()[:, : 3 * 44_100] * np.float32(LOUDER)
        ids = platform.upload(
            {
                "song.flac": encode(excerpt(), "flac", "flac"),
                "loud [live].wav": encode(loud, "wav", "pcm_f32le"),
                "empty.mp3": b"",
            }
        )
        assert platform.materialize().success
        yield Separated(platform.store, ids["song.flac"], ids["loud [live].wav"], ids["empty.mp3"])


def read(files: list[Path]) -> dict[str, np.ndarray]:
    """Stem → ``(frames, 2)`` float64."""
    audio = [path for path in files if path.suffix != ".csv"]
    return {path.stem: soundfile.read(path, always_2d=True)[0] for path in audio}


def mixture(store: ObjectStore, song: str) -> np.ndarray:
    """The decoded song as it is stored, ``(frames, 2)``."""
    rows = [row for rows in read_blocks(store, DECODED_WAVEFORMS, song) for row in rows]
    return np.concatenate([decode_flac(row["audio"]["bytes"], row["gain"]) for row in rows], axis=1).T


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_every_stem_is_as_long_as_the_song(audio_format, separated: Separated, tmp_path: Path) -> None:
    files = export_song(separated.store, separated.song, tmp_path, audio_format)
    folder = tmp_path / separated.song
    assert sorted(files) == sorted(folder.iterdir())
    assert sorted(p.name for p in files) == [
        *(f"{stem}.{audio_format}" for stem in STEM_NAMES[:1]),
        "instruments.csv",
        f"vocals.{audio_format}",
    ]
    for path in files:
        if path.suffix != ".csv":
            info = soundfile.info(path)
            assert (info.frames, info.samplerate, info.channels) == (excerpt().shape[1], 44_100, 2)


def test_wav_stems_add_up_to_the_mixture_to_16_bits(separated: Separated, tmp_path: Path) -> None:
    stems = read(export_song(separated.store, separated.song, tmp_path))
    assert soundfile.info(tmp_path / separated.song / "vocals.wav").subtype == "FLOAT"
    error = np.abs(sum(stems.values()) - mixture(separated.store, separated.song)).max()
    # Three sources were rounded, and none was silent.
    assert error <= 3 * STEPS * 1.001
    assert all(np.abs(stem).max() > 0.05 for stem in stems.values())


def test_flac_holds_the_same_samples_where_nothing_passes_full_scale(
    separated: Separated, tmp_path: Path
) -> None:
    wav = read(export_song(separated.store, separated.song, tmp_path))
    flac = read(export_song(separated.store, separated.song, tmp_path, "flac"))
    assert soundfile.info(tmp_path / separated.song / "vocals.flac").subtype == "PCM_24"
    for stem in STEM_NAMES:
        assert np.array_equal(wav[stem], flac[stem]), "24 bits hold what 16 did"


def test_a_loud_song_passes_full_scale_in_wav_and_is_lowered_as_a_whole_in_flac(
    separated: Separated, tmp_path: Path
) -> None:
    wav = read(export_song(separated.store, separated.loud, tmp_path))
    flac = read(export_song(separated.store, separated.loud, tmp_path, "flac"))
    peak = max(np.abs(stem).max() for stem in wav.values())
    assert peak > 1.05, "floats keep the true level"
    assert max(np.abs(stem).max() for stem in flac.values()) == pytest.approx(1.0, abs=2**-22)
    for stem in STEM_NAMES:
        assert np.abs(flac[stem] * peak - wav[stem]).max() < 2**-22 * peak, f"{stem}: one factor for all"


def test_the_instruments_of_the_mixture_and_of_the_stems_are_a_table(
    separated: Separated, tmp_path: Path
) -> None:
    export_song(separated.store, separated.song, tmp_path)
    with (tmp_path / separated.song / "instruments.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == INSTRUMENT_COLUMNS
    assert {row["source"] for row in rows} == {"mixture", *STEM_NAMES}
    assert all(0 <= float(row["score"]) <= 1 and row["model"] == "musicnn" for row in rows)


def test_an_export_replaces_the_one_before(separated: Separated, tmp_path: Path) -> None:
    (tmp_path / separated.song).mkdir()
    (tmp_path / separated.song / "vocals.wav").write_bytes(b"old")
    (tmp_path / separated.song / "my notes.txt").write_text("mine")
    files = export_song(separated.store, separated.song, tmp_path)
    assert len(read(files)["vocals"]) == excerpt().shape[1]
    assert (tmp_path / separated.song / "my notes.txt").read_text() == "mine"


def test_a_rejected_song_says_why_and_leaves_nothing(separated: Separated, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=rf"{separated.rejected} has no stems: upstream: empty: "):
        export_song(separated.store, separated.rejected, tmp_path / "out")
    assert not list(tmp_path.rglob("*"))


def test_a_song_that_was_not_separated_yet_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CannotAnalyze, match="nobody has no stems: materialize stems"):
        export_song(open_store(str(tmp_path / "store")), "nobody", tmp_path / "out")
    assert not list(tmp_path.rglob("*"))


def test_an_export_that_breaks_off_leaves_the_files_of_before(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    rows = [block_rows("song", block, ("vocals", "accompaniment")) for block in range(2)]
    write_stems(store, rows)
    files = export_song(store, "song", tmp_path / "out")
    before = {path: path.read_bytes() for path in files}

    rows[1][1]["audio"] = {"bytes": b"not FLAC", "path": "damaged.flac"}
    write_stems(store, rows)
    with pytest.raises(soundfile.LibsndfileError):
        export_song(store, "song", tmp_path / "out")
    found = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == before


def write_stems(store: ObjectStore, blocks: list[list[dict]]) -> None:
    with AudioTableWriter(store, STEMS, lineage("song")) as writer:
        for rows in blocks:
            writer.add(rows)
        writer.commit()


@pytest.fixture
def bandscope(
    separated: Separated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    monkeypatch.setenv("BANDSCOPE_STORAGE", separated.store.url)
    return CommandLine(monkeypatch, capsys)


def test_the_command_exports_by_file_name_even_with_brackets(
    bandscope: CommandLine, separated: Separated, tmp_path: Path
) -> None:
    done = bandscope("export", "loud [live].wav", "--to", tmp_path, "--format", "flac")
    assert done.code == 0
    assert {path.parent.name for path in tmp_path.rglob("*.flac")} == {separated.loud}
    assert str(tmp_path / separated.loud / "vocals.flac") in done.out


def test_a_rejected_song_does_not_stop_the_export_of_the_others(
    bandscope: CommandLine, separated: Separated, tmp_path: Path
) -> None:
    done = bandscope("export", "*", "--to", tmp_path)
    assert done.code == 1
    assert f"{separated.rejected} has no stems" in done.err
    assert {folder.name for folder in tmp_path.iterdir()} == {separated.song, separated.loud}


def test_a_name_that_no_song_has_is_an_error(bandscope: CommandLine, tmp_path: Path) -> None:
    done = bandscope("export", "nope*", "--to", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert "no song matches 'nope*'" in done.err


def test_a_song_that_failed_in_the_analysis_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store"))
    write_table(store, SONGS, [song_row("song")], lineage("song"))
    write_error_row(store, STEMS, "song", "upstream: truncated: 1 of 2 s", lineage("song"))
    monkeypatch.setenv("BANDSCOPE_STORAGE", store.url)
    done = CommandLine(monkeypatch, capsys)("export", "song", "--to", tmp_path / "out")
    assert done.code == 1 and "song has no stems: upstream: truncated: 1 of 2 s" in done.err
