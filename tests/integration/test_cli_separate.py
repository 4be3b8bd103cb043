"""``bandscope separate``: from files to stems in one command; other songs of the store are left alone."""

from pathlib import Path

import soundfile
from audio_files import encode, excerpt
from command_processes import bandscope
from platforms import song_bytes

from bandscope_dagster.orchestration.home import DAGSTER_YAML


def test_a_file_becomes_stems_in_one_folder_and_a_second_call_computes_nothing(tmp_path: Path) -> None:
    store, home, to = tmp_path / "store", tmp_path / "home", tmp_path / "out"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    (store / "uploads").mkdir(parents=True)
    (store / "uploads/other.wav").write_bytes(song_bytes(1))
    song = tmp_path / "song.flac"
    tags = {"title": "Falcon 69", "artist": "The Easton Ellises"}
    song.write_bytes(encode(excerpt(), "flac", "flac", tags=tags))

    other = tmp_path / "other.wav"
    other.write_bytes(song_bytes(2))  # another file has its name in the store
    command = ("separate", str(song), str(tmp_path / "gone.wav"), str(other), "--to", str(to))
    command += ("--stems", "vocals, accompaniment", "--without", "vocals")
    for again in (False, True):
        process = bandscope(store, home, *command)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 1 and "gone.wav: does not exist" in said
        assert "other.wav: a different file with this name is uploaded" in said
        assert ("are done" in said) is again, said
        assert "1 exported" in said and "heard" in said
    files = {file.name: soundfile.info(file).frames for file in to.glob("*.wav")}
    parts = ("vocals", "accompaniment", "without vocals")
    names = [f"The Easton Ellises - Falcon 69 ({part}).wav" for part in parts]
    assert files == dict.fromkeys(names, excerpt().shape[1])
    assert not list((store / "stems").glob("other-*")), "another song of the store was computed"
