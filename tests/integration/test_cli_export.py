"""Export: a song's stems as complete files at their true level, which add up to the song."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_files import encode, excerpt
from command_line import CommandLine
from instances import new_instance
from page_songs import noise, store_song, store_sound, tone
from platforms import Platform, local_settings
from song_rows import block_rows, lineage, song_row, tag_row

from bandscope_dagster.audio.flac import decode_flac
from bandscope_dagster.cli.export import NothingSelected, select_songs
from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.exporting.encodings import MP3_CEILING, find_encoding
from bandscope_dagster.exporting.flat_export import export_flat
from bandscope_dagster.exporting.folders import LISTED_RECORD, RECORD, ExportFolder
from bandscope_dagster.exporting.gain import NoLoudness
from bandscope_dagster.exporting.instruments import INSTRUMENT_COLUMNS
from bandscope_dagster.exporting.song import ExportError
from bandscope_dagster.exporting.song_export import Exported, ExportOptions, export_song
from bandscope_dagster.songs.find import NoSuchSong
from bandscope_dagster.songs.query import QueryError
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter, read_blocks
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.schemas import DECODED_WAVEFORMS, SONGS, STEMS, table_key
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table

LOUDER = 4.0  # the excerpt times this passes full scale, and so does its accompaniment
HALF_STEP = 2.0**-16  # half a step of 16 bits: the largest rounding error of one stored source
STEM_NAMES = ("accompaniment", "vocals")

WAV = ExportOptions(find_encoding("wav"))
FLAC = ExportOptions(find_encoding("flac"))
MP3 = ExportOptions(find_encoding("mp3"))
LISTS = replace(WAV, lists=True)


@dataclass(frozen=True, slots=True)
class Separated:
    """A store with a real song, a loud song and a rejected upload, and its catalogs."""

    store: ObjectStore
    song: str
    loud: str
    rejected: str


@pytest.fixture(scope="module")
def separated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Separated]:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path_factory.mktemp("export")), instance)
        loud = excerpt()[:, : 3 * 44_100] * np.float32(LOUDER)
        tags = {"title": "Falcon 69", "artist": "The Easton Ellises", "album": "Stems"}
        ids = platform.upload(
            {
                "song.flac": encode(excerpt(), "flac", "flac", tags=tags),
                "loud [live].wav": encode(loud, "wav", "pcm_f32le"),
                "empty.mp3": b"",
            }
        )
        assert platform.materialize().success
        assert platform.materialize_catalogs().success
        yield Separated(platform.store, ids["song.flac"], ids["loud [live].wav"], ids["empty.mp3"])


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """The folder for the exported files."""
    return tmp_path / "out"


def exported(store: ObjectStore, song: str, to: Path, options: ExportOptions = WAV) -> Exported:
    """Export a song as one call of the command does."""
    return export_song(store, song, ExportFolder(to), options)


def read(folder: Path, suffix: str = "wav") -> dict[str, np.ndarray]:
    """Source → ``(frames, 2)`` float64."""
    return {path.stem: soundfile.read(path, always_2d=True)[0] for path in folder.glob(f"*.{suffix}")}


def files_in(folder: Path) -> dict[str, bytes]:
    """Relative path → content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mixture(store: ObjectStore, song: str) -> np.ndarray:
    """The stored decoded song, ``(frames, 2)``."""
    rows = [row for rows in read_blocks(store, DECODED_WAVEFORMS, song) for row in rows]
    return np.concatenate([decode_flac(row["audio"]["bytes"], row["gain"]) for row in rows], axis=1).T


def two_stems(seconds: float = 0.5, level: float = 0.1) -> dict[str, np.ndarray]:
    return {"vocals": noise(seconds, level, seed=1), "drums": noise(seconds, level, seed=2)}


# The content of the files.


@pytest.mark.parametrize("options", [WAV, FLAC, MP3], ids=lambda o: o.encoding.suffix)
def test_a_song_is_a_folder_of_stems_of_its_length(options, separated: Separated, to: Path) -> None:
    done = exported(separated.store, separated.song, to, options)
    suffix = options.encoding.suffix
    assert done.folder == to / "The Easton Ellises - Falcon 69"
    assert done.written == (f"accompaniment.{suffix}", f"vocals.{suffix}")
    assert sorted(path.name for path in done.folder.iterdir()) == sorted([*done.written, RECORD])
    for stem in STEM_NAMES:
        info = soundfile.info(done.folder / f"{stem}.{suffix}")
        assert (info.frames, info.samplerate, info.channels) == (excerpt().shape[1], 44_100, 2)


def test_wav_stems_add_up_to_the_mixture_to_16_bits(separated: Separated, to: Path) -> None:
    done = exported(separated.store, separated.song, to, replace(WAV, mixture=True))
    sounds = read(done.folder)
    assert soundfile.info(done.folder / "vocals.wav").subtype == "FLOAT"
    assert np.array_equal(sounds["mixture"], mixture(separated.store, separated.song))
    stems = [sounds[stem] for stem in STEM_NAMES]
    # Three sources were rounded, and no stem was silent.
    assert np.abs(sum(stems) - sounds["mixture"]).max() <= 3 * HALF_STEP * 1.001
    assert all(np.abs(stem).max() > 0.05 for stem in stems)


@pytest.mark.parametrize("kind", [("flac", "24"), ("flac", "16"), ("wav", "24"), ("wav", "16")], ids=str)
def test_integers_equal_the_stored_samples_below_full_scale(kind, separated: Separated, to: Path) -> None:
    done = exported(separated.store, separated.song, to, ExportOptions(find_encoding(*kind)))
    exact = exported(separated.store, separated.song, to / "exact")
    assert soundfile.info(done.folder / f"vocals.{kind[0]}").subtype == f"PCM_{kind[1]}"
    for stem, samples in read(exact.folder).items():
        assert np.array_equal(read(done.folder, kind[0])[stem], samples)


def test_a_loud_song_passes_full_scale_in_wav_and_is_lowered_as_a_whole_in_flac(
    separated: Separated, to: Path
) -> None:
    floats = exported(separated.store, separated.loud, to, replace(WAV, mixture=True))
    integers = exported(separated.store, separated.loud, to, replace(FLAC, mixture=True))
    wav, flac = read(floats.folder), read(integers.folder, "flac")
    peak = max(np.abs(samples).max() for samples in wav.values())
    assert peak > 1.05 and floats.gain.factor == 1.0, "floats keep the true level"
    assert integers.gain.limited and integers.gain.db == pytest.approx(-20 * np.log10(peak), abs=1e-3)
    assert max(np.abs(samples).max() for samples in flac.values()) == pytest.approx(1.0, abs=2**-16)
    for source, samples in flac.items():
        assert np.abs(samples / integers.gain.factor - wav[source]).max() < 2**-22 * peak, (
            f"{source}: one gain"
        )


def test_an_mp3_of_a_song_at_full_scale_leaves_a_decibel_for_its_decoder(
    separated: Separated, to: Path
) -> None:
    floats = read(exported(separated.store, separated.loud, to, replace(WAV, mixture=True)).folder)
    done = exported(separated.store, separated.loud, to, MP3)
    peak = max(np.abs(samples).max() for samples in floats.values())
    assert done.gain.factor == pytest.approx(MP3_CEILING / peak, rel=1e-3)
    assert all(np.abs(samples).max() < 1.0 for samples in read(done.folder, "mp3").values())


def test_normalised_stems_add_up_to_a_mixture_of_that_loudness(separated: Separated, to: Path) -> None:
    done = exported(separated.store, separated.song, to, ExportOptions(WAV.encoding, -23.0, mixture=True))
    sounds = read(done.folder)
    import pyloudnorm  # takes a second

    assert pyloudnorm.Meter(44_100, filter_class="DeMan").integrated_loudness(
        sounds["mixture"]
    ) == pytest.approx(-23.0, abs=0.01)
    error = np.abs(sum(sounds[stem] for stem in STEM_NAMES) - sounds["mixture"]).max()
    assert error <= 3 * HALF_STEP * done.gain.factor * 1.01


def test_integers_are_normalised_only_up_to_full_scale(store: ObjectStore, to: Path) -> None:
    store_song(store, "song", {"a": tone(1, 440, 0.5)})
    done = exported(store, "song", to, replace(FLAC, normalise_lufs=0.0))
    assert done.gain.limited
    (samples,) = read(done.folder, "flac").values()
    assert np.abs(samples).max() == pytest.approx(1.0, abs=1e-4)


def test_a_song_without_a_loudness_cannot_be_normalised(store: ObjectStore, to: Path) -> None:
    store_song(store, "song", {"a": np.zeros((2, 44_100), np.float32)})
    with pytest.raises(NoLoudness, match=r"song cannot be normalised: .* export it without --normalise"):
        exported(store, "song", to, replace(WAV, normalise_lufs=-14.0))
    assert exported(store, "song", to).written == ("a.wav",)


@pytest.mark.parametrize("options", [WAV, FLAC, MP3], ids=lambda o: o.encoding.suffix)
def test_the_tags_name_the_song_and_the_stem(options, separated: Separated, to: Path) -> None:
    done = exported(separated.store, separated.song, to, options)
    with av.open(str(done.folder / f"vocals.{options.encoding.suffix}")) as container:
        tags = container.metadata
    assert tags["title"] == "Falcon 69 (vocals)"
    assert (tags["artist"], tags["album"]) == ("The Easton Ellises", "Stems")
    made = f"vocals of {separated.song}, separated by spleeter-2stems, gain +0.00 dB"
    assert tags["comment"] == made
    assert tags.get("stem", "vocals") == "vocals"


def test_the_instruments_of_the_mixture_and_of_the_stems_are_a_table(separated: Separated, to: Path) -> None:
    folder = exported(separated.store, separated.song, to, LISTS).folder
    with (folder / "instruments.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == INSTRUMENT_COLUMNS
    assert {row["source"] for row in rows} == {"mixture", *STEM_NAMES}
    assert all(0 <= float(row["score"]) <= 1 and row["model"] == "bandscope-instruments" for row in rows)


def test_a_long_song_takes_no_more_memory(store: ObjectStore, to: Path) -> None:
    store_long_song(store, "song", blocks=40)
    code = (
        "import resource\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        f"{EXPORT}"
        "print((peak() - before) / 1024)"
    )
    done = run_python(code, store.url, to, "song").communicate(timeout=300)[0]
    assert float(done.split()[-1]) < 100, "MB; the stems have 280"


EXPORT = """
import sys
from pathlib import Path
from bandscope_dagster.exporting.encodings import find_encoding
from bandscope_dagster.exporting.folders import ExportFolder
from bandscope_dagster.exporting.song_export import ExportOptions, export_song
from bandscope_dagster.storage.objects.open_store import open_store
folder = ExportFolder(Path(sys.argv[2]))
for song in sys.argv[3:]:
    export_song(open_store(sys.argv[1]), song, folder, ExportOptions(find_encoding("wav", "16")))
    print(song, flush=True)
"""


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that runs ``code``."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def store_long_song(store: ObjectStore, song: str, blocks: int) -> None:
    """Two stems that repeat one block of 10 s."""
    write_table(store, SONGS, [song_row(song, title="One name")], lineage(song))
    rows = block_rows(song, 0, STEM_NAMES, seconds=10)
    with AudioTableWriter(store, STEMS, lineage(song)) as writer:
        for block in range(blocks):
            writer.add([row | {"block": block, "start_frame": block * 441_000} for row in rows])
        writer.commit()


# Names.


HOSTILE = {
    "../../x": "_.._x",
    "CON": "_CON",
    "/etc/passwd": "_etc_passwd",
    "x" * 300: "x" * 66,
    "🎸🎸": "🎸🎸",
    "שיר \u202elive": "שיר live",
    "[red]a*?": "[red]a__",
    "100%d:file": "100%d_file",
}


def test_the_folder_of_a_hostile_title_is_inside_the_target(store: ObjectStore, to: Path) -> None:
    folder = ExportFolder(to)
    for number, title in enumerate(HOSTILE):
        store_song(store, f"song-{number}", two_stems(0.1), title=title, artist=None)
        done = export_song(store, f"song-{number}", folder, WAV)
        assert done.folder == to / HOSTILE[title]
        assert {"drums", "vocals"} == read(done.folder).keys()
        with av.open(str(done.folder / "drums.wav")) as container:
            assert container.metadata["title"] == f"{title.replace(chr(0x202E), '')} (drums)"
    assert {path.name for path in to.iterdir() if not path.name.startswith(".")} == set(HOSTILE.values())
    assert not (to.parent / "x").exists()


def test_the_name_of_a_stem_is_never_a_path(store: ObjectStore, to: Path) -> None:
    store_song(store, "song", {"../up": noise(0.1), "nul": noise(0.1)})
    assert {path.name for path in exported(store, "song", to).folder.glob("*.wav")} == {"_up.wav", "_nul.wav"}


def test_songs_with_the_same_name_have_separate_folders_and_keep_them(store: ObjectStore, to: Path) -> None:
    titles = {"one": "Night Bus", "two": "NIGHT BUS", "three": "Night Bus"}
    for seed, (song, title) in enumerate(titles.items()):
        store_song(store, song, {"a": noise(0.1, seed=seed)}, title=title)
    names = {song: exported(store, song, to).folder.name for song in titles}
    assert names == {"one": "Night Bus", "two": "NIGHT BUS (2)", "three": "Night Bus (3)"}
    for song in reversed(titles):
        again = exported(store, song, to)
        assert again.folder.name == names[song] and not again.written


def test_a_folder_of_the_user_is_not_changed(store: ObjectStore, to: Path) -> None:
    store_song(store, "song", two_stems(), title="Night Bus", artist="Mia")
    (to / "Mia - Night Bus").mkdir(parents=True)
    (to / "Mia - Night Bus" / "vocals.wav").write_bytes(b"mine")
    assert exported(store, "song", to).folder.name == "Mia - Night Bus (2)"
    assert files_in(to / "Mia - Night Bus") == {"vocals.wav": b"mine"}


# A second export.


def test_complete_files_are_kept(store: ObjectStore, to: Path) -> None:
    store_song(store, "song", two_stems())
    first = exported(store, "song", to)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = exported(store, "song", to)
    assert (again.written, again.kept) == ((), first.written)
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before


def test_only_missing_or_truncated_files_are_written_again(store: ObjectStore, to: Path) -> None:
    store_song(store, "song", two_stems())
    folder = exported(store, "song", to).folder
    whole = files_in(folder)
    (folder / "my notes.txt").write_text("mine")
    (folder / "drums.wav").unlink()
    assert exported(store, "song", to).written == ("drums.wav",)
    with (folder / "vocals.wav").open("r+b") as file:
        file.truncate(1000)
    assert exported(store, "song", to).written == ("vocals.wav",)
    assert files_in(folder) == whole | {"my notes.txt": b"mine"}


def test_another_format_or_the_mixture_is_added(store: ObjectStore, to: Path) -> None:
    store_song(store, "song", two_stems())
    exported(store, "song", to)
    assert exported(store, "song", to, replace(WAV, mixture=True)).written == ("mixture.wav",)
    flac = exported(store, "song", to, FLAC)
    assert flac.written == ("drums.flac", "vocals.flac")
    names = {"drums", "mixture", "vocals"}
    assert read(flac.folder).keys() == names and read(flac.folder, "flac").keys() == names - {"mixture"}
    assert not exported(store, "song", to).written


def test_lists_are_written_where_asked_for_and_then_stay_up_to_date(store: ObjectStore, to: Path) -> None:
    store_song(store, "song", two_stems())
    assert {path.name for path in exported(store, "song", to).folder.iterdir()} == {
        "drums.wav",
        "vocals.wav",
        RECORD,
    }
    listed = exported(store, "song", to, LISTS)
    assert listed.written == ("instruments.csv",)
    before = files_in(listed.folder)
    assert before.keys() == {"drums.wav", "vocals.wav", "instruments.csv", LISTED_RECORD, RECORD}
    store_song(store, "song", two_stems(), [tag_row("song", "flute", 0.5, 0.0)])
    assert exported(store, "song", to).written == ("instruments.csv",)
    after = files_in(listed.folder)
    assert (
        before["instruments.csv"] != after["instruments.csv"]
        and before[LISTED_RECORD] != after[LISTED_RECORD]
    )
    (listed.folder / RECORD).unlink()  # as version 0.1 left it
    assert not exported(store, "song", to).written


def test_new_stems_replace_the_old_ones_in_every_format(store: ObjectStore, to: Path) -> None:
    mixed = store_song(store, "song", two_stems())
    for options in (replace(WAV, mixture=True), FLAC):
        exported(store, "song", to, options)
    separate_again(store, "song", {"vocals": mixed / 2, "bass": mixed / 2})
    done = exported(store, "song", to)
    assert done.written == ("bass.wav", "vocals.wav")
    assert {path.name for path in done.folder.glob("*.*")} == {
        "bass.wav",
        "vocals.wav",
        "mixture.wav",
        "vocals.flac",
        RECORD,
    } - {"vocals.flac"}


def test_an_export_at_another_level_deletes_the_old_mixture(store: ObjectStore, to: Path) -> None:
    store_song(store, "song", two_stems(1.0))
    exported(store, "song", to, replace(WAV, mixture=True))
    done = exported(store, "song", to, replace(WAV, normalise_lufs=-30.0))
    assert read(done.folder).keys() == {"drums", "vocals"}


def separate_again(store: ObjectStore, song: str, stems: dict[str, np.ndarray]) -> None:
    """Store other stems, from another model."""
    blocks: list[list[dict]] = []
    scratch = open_store(f"{store.url}-scratch")
    store_sound(scratch, song, np.sum(list(stems.values()), axis=0), stems)
    blocks += read_blocks(scratch, STEMS, song)
    with AudioTableWriter(store, STEMS, lineage(song, model="another", input_digest="99" * 32)) as writer:
        for rows in blocks:
            writer.add(rows)
        writer.commit()


def test_after_a_kill_the_next_export_completes_the_files(
    store: ObjectStore, to: Path, tmp_path: Path
) -> None:
    songs = [f"song-{number}" for number in range(4)]
    options = ExportOptions(find_encoding("wav", "16"))
    for song in songs:
        store_long_song(store, song, blocks=6)
        exported(store, song, tmp_path / "whole", options)
    begun = run_python(EXPORT, store.url, to, *songs)
    assert begun.stdout is not None and begun.stdout.readline().strip() == songs[0]
    os.kill(begun.pid, signal.SIGKILL)
    begun.communicate()

    done = [exported(store, song, to, options) for song in songs]
    assert not done[0].written, "complete files are kept"
    assert len(done[-1].written) == 2, "the kill came before the last song"
    assert files_in(to) == files_in(tmp_path / "whole")


# Songs that cannot be exported.


def test_a_rejected_song_says_why_and_writes_nothing(separated: Separated, to: Path) -> None:
    with pytest.raises(ExportError, match=rf"{separated.rejected} has no stems \(rejected\): empty: "):
        exported(separated.store, separated.rejected, to)
    assert not list(to.rglob("*"))


@pytest.mark.parametrize("options", [WAV, replace(WAV, mixture=True)], ids=["stems", "mixture"])
def test_a_song_without_a_table_says_what_to_do(options, store: ObjectStore, to: Path) -> None:
    store_song(store, "song", two_stems())
    table = DECODED_WAVEFORMS if options.mixture else STEMS
    store.delete(table_key(table, "song"))
    with pytest.raises(CannotAnalyze, match=f"song has no {table.name}: materialize {table.name}"):
        exported(store, "song", to, options)
    assert not files_in(to)


def test_an_error_during_an_export_keeps_the_old_files(store: ObjectStore, to: Path) -> None:
    write_table(store, SONGS, [song_row("song")], lineage("song"))
    rows = [block_rows("song", block, STEM_NAMES) for block in range(2)]
    write_stems(store, rows)
    exported(store, "song", to)
    before = files_in(to)

    rows[1][1]["audio"] = {"bytes": b"not FLAC", "path": "damaged.flac"}
    write_stems(store, rows, model="another")
    with pytest.raises(
        DamagedFile, match="song: the stored audio of vocals is damaged in block 1; `bandscope run"
    ):
        exported(store, "song", to)
    assert files_in(to) == before


def test_stems_of_unequal_length_are_an_error_of_that_song_in_one_folder_too(
    store: ObjectStore, to: Path
) -> None:
    write_table(store, SONGS, [song_row("song")], lineage("song"))
    rows = [block_rows("song", block, STEM_NAMES) for block in range(2)]
    write_stems(store, [rows[0], rows[1][:1]])
    with pytest.raises(ExportError, match="song: its stems are not as long as the song; materialize"):
        export_flat(store, "song", to, WAV.encoding, (), (), mixture=False, normalise_lufs=None, taken={})
    assert not list(to.glob("*.wav"))


def test_stems_of_unequal_length_are_an_error(store: ObjectStore, to: Path) -> None:
    write_table(store, SONGS, [song_row("song")], lineage("song"))
    rows = [block_rows("song", block, STEM_NAMES) for block in range(2)]
    write_stems(store, [rows[0], rows[1][:1]])
    with pytest.raises(
        ExportError, match="song: vocals has 22050 frames, but the song has 44100; materialize"
    ):
        exported(store, "song", to)
    assert not files_in(to)


def write_stems(store: ObjectStore, blocks: list[list[dict]], **changes: str) -> None:
    with AudioTableWriter(store, STEMS, lineage("song", **changes)) as writer:
        for rows in blocks:
            writer.add(rows)
        writer.commit()


# The choice of songs.


def test_songs_are_chosen_by_name_and_by_a_condition_on_the_catalog(separated: Separated) -> None:
    store, song, loud = separated.store, separated.song, separated.loud
    assert select_songs(store, [song, "loud [live].wav", "Falcon*"], None) == ([song, loud], [])
    assert select_songs(store, [], "status = 'ok' AND duration_s > 4") == ([song], [])
    assert select_songs(store, ["loud*", song], "peak > 1 -- of the upload") == ([loud], [])
    heard = "song_id IN (SELECT song_id FROM instrument_catalog WHERE instrument = 'drums')"
    assert song in select_songs(store, [], heard)[0]


@pytest.mark.parametrize(
    "patterns, where, error",
    [
        ([], None, NothingSelected),
        (["nope*"], None, NoSuchSong),
        ([], "duration_s > 1000", NoSuchSong),
        ([], "duration > 1", QueryError),
        ([], "1 = 1); DROP TABLE songs", QueryError),
    ],
    ids=str,
)
def test_a_choice_without_songs_is_an_error(patterns, where, error, separated: Separated) -> None:
    with pytest.raises(error):
        select_songs(separated.store, patterns, where)


# The command.


@pytest.fixture
def bandscope(
    separated: Separated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    monkeypatch.setenv("BANDSCOPE_STORAGE", separated.store.url)
    return CommandLine(monkeypatch, capsys)


def test_the_command_exports_by_file_name_even_with_brackets(bandscope: CommandLine, to: Path) -> None:
    done = bandscope("export", "loud [live].wav", "--to", to, "--format", "flac", "--bits", "16", "--mixture")
    assert done.code == 0
    assert {path.name for path in to.rglob("*.flac")} == {"accompaniment.flac", "mixture.flac", "vocals.flac"}
    assert f"{to / 'loud [live]'}: accompaniment.flac, mixture.flac, vocals.flac" in done.out
    assert "the highest level without clipping" in done.out
    again = bandscope("export", "loud [live].wav", "--to", to, "--format", "flac", "--bits", "16")
    assert (again.code, "1 up to date" in again.out) == (0, True)


def test_a_rejected_song_does_not_stop_the_export_of_the_others(
    bandscope: CommandLine, separated: Separated, to: Path
) -> None:
    done = bandscope("export", "*", "Falcn 69", "--to", to)
    assert done.code == 1, "a pattern matches nothing"
    assert "no song matches 'Falcn 69'; similar names: Falcon 69" in done.err
    assert f"skipped: {separated.rejected} has no stems (rejected)" in done.out
    assert "2 exported" in done.out and "1 rejected" in done.out and "failed" not in done.out
    assert {path.parent.name for path in to.rglob("*.wav")} == {
        "loud [live]",
        "The Easton Ellises - Falcon 69",
    }


def test_the_command_exports_songs_by_a_condition_at_a_loudness(bandscope: CommandLine, to: Path) -> None:
    done = bandscope("export", "--where", "artist LIKE 'The %'", "--normalise", "-20", "--to", to)
    assert done.code == 0
    total = sum(read(to / "The Easton Ellises - Falcon 69").values())
    import pyloudnorm  # takes a second

    assert pyloudnorm.Meter(44_100, filter_class="DeMan").integrated_loudness(total) == pytest.approx(
        -20.0, abs=0.05
    )


def test_flat_files_are_in_one_folder_and_a_stem_and_the_rest_are_the_mixture(
    bandscope: CommandLine, to: Path
) -> None:
    options = ("--format", "flac", "--bits", "16", "--mixture", "--normalise", "-18", "--to", to)
    done = bandscope("export", "falcon", "--stem", "vocals", "--without", "vocals", *options)
    assert done.code == 0 and "the mixture is at -18.0 LUFS" in done.out
    names = {
        part: f"The Easton Ellises - Falcon 69 ({part}).flac"
        for part in ("vocals", "without vocals", "mixture")
    }
    assert {path.name for path in to.iterdir()} == set(names.values())
    parts = {part: soundfile.read(to / name, dtype="int16")[0] for part, name in names.items()}
    error = parts["vocals"].astype(int) + parts["without vocals"] - parts["mixture"]
    assert abs(error).max() <= 1 and abs(parts["vocals"]).max() > 100
    done = bandscope("export", "falcon", "--stem", "drums", "--to", to)
    assert done.code == 1 and "has no stem 'drums'; its stems are accompaniment, vocals" in done.err


def test_songs_with_the_same_artist_and_title_do_not_overwrite_each_other_in_one_folder(
    store: ObjectStore, to: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for song, title in (("one-0123456789ab", "Twin"), ("two-ba9876543210", "twin"), ("three-0", "Other")):
        store_song(store, song, two_stems(), title=title)
    monkeypatch.setenv("BANDSCOPE_STORAGE", store.url)
    for _ in range(2):  # the second export replaces the files of the first
        done = CommandLine(monkeypatch, capsys)("export", "*", "--flat", "--stem", "vocals", "--to", to)
        assert done.code == 0, done.err
        names = {path.name for path in to.glob("*.wav")}
        assert names == {"Other (vocals).wav", "Twin (vocals).wav", "twin [ba9876543210] (vocals).wav"}


def test_an_export_leaves_no_hidden_folder_of_ours_and_takes_no_file_of_others(
    bandscope: CommandLine, to: Path
) -> None:
    assert bandscope("export", "falcon", "--to", to).code == 0
    assert [path.name for path in to.iterdir()] == ["The Easton Ellises - Falcon 69"]
    (to / ".pending").mkdir()
    (to / ".pending" / "mine").write_text("kept")
    assert bandscope("export", "falcon", "--flat", "--to", to).code == 0
    assert [path.name for path in (to / ".pending").iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_made_is_called_a_folder(bandscope: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = bandscope("export", "falcon", "--flat", "--to", tmp_path / "file" / "x")
    assert done.code == 1 and f"in the folder {tmp_path / 'file' / 'x'}" in done.err
    assert "Errno" not in done.err and "store" not in done.err


def test_24_bits_of_16_are_told(bandscope: CommandLine, to: Path) -> None:
    asked = bandscope("export", "falcon", "--flat", "--bits", "24", "--to", to)
    assert "stored with 16 bits" in asked.out and "BANDSCOPE_FLAC_BITS=24" in asked.out


def test_a_name_without_a_song_is_an_error(bandscope: CommandLine, to: Path) -> None:
    done = bandscope("export", "nope*", "--to", to)
    assert (done.code, done.out) == (1, "")
    assert "no song matches 'nope*'" in done.err


def test_a_damaged_song_is_named_and_the_next_song_is_exported(
    store: ObjectStore, to: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for song in ("damaged", "failed", "fine"):
        store_song(store, song, two_stems(), title=song)
    with store.create(table_key(STEMS, "damaged")) as pending:
        pending.write(b"not Parquet")
    write_error_row(store, STEMS, "failed", "upstream: truncated: 1 of 2 s", lineage("failed"))
    monkeypatch.setenv("BANDSCOPE_STORAGE", store.url)
    done = CommandLine(monkeypatch, capsys)("export", "*", "--to", to)
    assert done.code == 1
    assert "damaged" in done.err and "failed has no stems (partial): truncated: 1 of 2 s" in done.err
    assert {path.parent.name for path in to.rglob("*.wav")} == {"fine"}
