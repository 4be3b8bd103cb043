"""Stem files: five streams in NI's order, read back by stempeg and ffprobe, with the atom of NI's Stems."""

import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audio_files import stempeg_song
from command_line import CommandLine
from page_songs import noise, store_song, tone

from bandscope_dagster.exporting.song import ExportError, read_song
from bandscope_dagster.exporting.stem_atom import COLOURS, add_stem_atom
from bandscope_dagster.exporting.stem_file import SUGGESTED, parts_of_stem_file
from bandscope_dagster.separation.chosen_stems import stems_of
from bandscope_dagster.separation.registry import SEPARATORS
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore

pytestmark = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")),
    reason="stempeg reads with the programs ffmpeg and ffprobe, which are not installed",
)
SECONDS = 1.7
ORDER = ["mixture", "drums", "bass", "other", "vocals"]
PITCHES = {"drums": 300.0, "bass": 100.0, "other": 900.0, "vocals": 500.0, "guitar": 1500.0}  # Hz


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A store with a song of four stems, one of five, and one of two."""
    store = open_store(str(tmp_path / "store"))
    stems = {stem: tone(SECONDS, pitch, 0.2) for stem, pitch in PITCHES.items()}
    more = {"title": "Nachtbus é", "artist": "Mia"}
    store_song(store, "five", stems, **more | {"title": "Five"})
    store_song(store, "four", {stem: stems[stem] for stem in sorted(COLOURS)}, **more)
    store_song(store, "two", {"accompaniment": noise(0.2), "vocals": noise(0.2)}, title="Two")
    return store


def stem_atoms(data: bytes) -> list[dict]:
    """The JSON of every moov/udta/stem box, found by the sizes of boxes alone."""

    def inside(content: bytes, kind: bytes) -> list[bytes]:
        found = []
        while content:
            size = int.from_bytes(content[:4], "big")
            if content[4:8] == kind:
                found.append(content[8:size])
            content = content[size:]
        return found

    moovs = inside(data, b"moov")
    return [
        json.loads(each) for moov in moovs for udta in inside(moov, b"udta") for each in inside(udta, b"stem")
    ]


def pitches(path: Path) -> list[list[float]]:
    """The frequencies (Hz) in each stream, as stempeg reads the file; all streams are as long as the song."""
    import stempeg  # needs the program ffmpeg

    stems, rate = stempeg.read_stems(str(path))
    assert rate == 44_100 and abs(stems.shape[1] - SECONDS * rate) <= 1024
    window = stems[:, :44_100, 0] * np.hanning(44_100)
    power = np.abs(np.fft.rfft(window, axis=1))
    return [[float(hz) for hz in sorted(PITCHES.values()) if each[int(hz)] > 1000] for each in power]


@pytest.mark.parametrize("options, codec", [([], "aac"), (["--format", "alac"], "alac")], ids=["aac", "alac"])
def test_a_stem_file_has_five_streams_in_order_and_names_them(
    options, codec, store: ObjectStore, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("BANDSCOPE_STORAGE", store.url)
    bandscope = CommandLine(monkeypatch, capsys)
    done = bandscope("export", "*", "--stem-file", "--to", tmp_path / "out", *options)
    assert done.code == 1, "a song of two stems"
    assert "two has no drums, no bass, no other: m separates into accompaniment and vocals" in done.err
    assert "bandscope models pull htdemucs" in done.err and "2 exported, 1 failed" in done.out

    files = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("."))
    assert files == ["Mia - Five.stem.mp4", "Mia - Nachtbus é.stem.mp4"]
    path = tmp_path / "out" / files[1]
    tones = {stem: [pitch] for stem, pitch in PITCHES.items()} | {"mixture": [100.0, 300.0, 500.0, 900.0]}
    assert pitches(path) == [tones[stem] for stem in ORDER]
    tones |= {"other": [900.0, 1500.0], "mixture": sorted(PITCHES.values())}
    assert pitches(tmp_path / "out" / files[0]) == [tones[stem] for stem in ORDER]

    probe = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_format", str(path)]
    found = json.loads(subprocess.run(probe, check=True, capture_output=True, timeout=60).stdout)
    streams = found["streams"]
    assert [stream["tags"]["handler_name"] for stream in streams] == ORDER
    assert {(stream["codec_name"], stream["sample_rate"], stream["channels"]) for stream in streams} == {
        (codec, "44100", 2)
    }
    assert [stream["disposition"]["default"] for stream in streams] == [1, 0, 0, 0, 0]
    assert found["format"]["tags"]["title"] == "Nachtbus é" and found["format"]["tags"]["artist"] == "Mia"

    (atom,) = stem_atoms(path.read_bytes())
    (theirs,) = stem_atoms(stempeg_song())
    assert [stem["name"] for stem in atom["stems"]] == ["Drums", "Bass", "Other", "Vocals"]
    assert [stem["color"] for stem in atom["stems"]] == [stem["color"] for stem in theirs["stems"]]
    assert {name: each.keys() for name, each in atom["mastering_dsp"].items()} == {
        name: each.keys() for name, each in theirs["mastering_dsp"].items()
    }
    assert atom["version"] == theirs["version"] and atom.keys() == theirs.keys()


def test_the_atom_goes_to_the_end_of_a_file_of_any_size_and_only_behind_all_audio() -> None:
    audio = b"\0\0\0\1mdat" + (20).to_bytes(8, "big") + b"long"  # a size of 64 bits
    file = io.BytesIO(audio + b"\0\0\0\x14moov\0\0\0\x0cmvhdhead")  # no user data yet
    add_stem_atom(file)
    data = file.getvalue()
    assert data.startswith(audio) and b"mvhdhead" in data
    assert len(stem_atoms(data[len(audio) :])) == 1
    with pytest.raises(ValueError, match="the last box of the file is b'free' and not moov"):
        add_stem_atom(io.BytesIO(stempeg_song()))


@pytest.mark.parametrize(
    "options, said",
    [
        (["--stem-file", "--format", "mp3"], "aac and alac are the formats of --stem-file"),
        (["--format", "alac"], "aac and alac are the formats of --stem-file"),
        (["--stem-file", "--without", "vocals"], "omit --stem, --without and --mixture"),
        (["--stem-file", "--bits", "16"], "aac does not support --bits 16"),
    ],
    ids=str,
)
def test_options_that_a_stem_file_does_not_have_are_an_error(
    options, said: str, store: ObjectStore, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("BANDSCOPE_STORAGE", store.url)
    done = CommandLine(monkeypatch, capsys)("export", "four", "--to", tmp_path / "out", *options)
    assert done.code != 0 and said in " ".join(done.err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_the_suggested_separator_exists_and_fits() -> None:
    assert SUGGESTED in SEPARATORS and set(COLOURS) <= set(stems_of(SUGGESTED))


@pytest.mark.parametrize("separator", ["htdemucs", "scnet-large", "bs-roformer-sw", "htdemucs-mean"])
def test_of_a_separator_that_fits_the_lacking_stems_were_not_chosen(
    separator: str, store: ObjectStore
) -> None:
    song = replace(read_song(store, "two"), separator=separator, stems=("vocals",))
    with pytest.raises(
        ExportError, match=r"only vocals were computed.* unset BANDSCOPE_STEMS, then bandscope run"
    ):
        parts_of_stem_file(song)
