"""``bandscope separate``: from files to stems in one command; other songs of the store are left alone."""

import json
from pathlib import Path

import polars as pl
import soundfile
from audio_files import encode, excerpt
from command_processes import bandscope
from platforms import song_bytes

from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, read_lineage, read_note
from bandscope_dagster.storage.tables.schemas import STEMS


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


def test_only_named_stems_are_computed_and_more_of_them_later(tmp_path: Path) -> None:
    store, home, to = tmp_path / "store", tmp_path / "home", tmp_path / "out"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    song = tmp_path / "song.wav"
    song.write_bytes(encode(excerpt()[:, :132_300], "wav", "pcm_s16le"))

    def separate(*options: str) -> tuple[int, str]:
        process = bandscope(store, home, "separate", str(song), "--to", str(to), *options)
        said, _ = process.communicate(timeout=600)
        return process.returncode, said

    code, said = separate("--stems", "drums")
    assert code == 1 and "spleeter-2stems has no stem 'drums'; its stems are vocals, accompaniment" in said
    assert not (store / "uploads").exists() and not to.exists(), "something was done before the refusal"

    code, said = separate("--without", "vocals")
    assert code == 0, said
    (file,) = (store / "stems").glob("*.parquet")
    opened, song_id = LocalStore(store), file.stem
    stems = pl.read_parquet(file)
    lineage, note = read_lineage(opened, STEMS, song_id), read_note(opened, STEMS, song_id, QUALITY_NOTE)
    assert lineage is not None and json.loads(lineage.params)["stems"] == ["vocals"] and note is not None
    assert stems["stem"].unique().to_list() == ["vocals"], "the mixture without the vocals needs only them"
    vocals = SeparationQuality.from_json(note).stems[0]
    assert 0 < vocals.share < 0.9, "the accompaniment is not stored, and has its share of the energy"
    tags = pl.read_parquet(store / "stem_instrument_tags" / file.name)
    assert tags["source"].unique().to_list() == ["vocals"]
    (row,) = pl.read_parquet(store / "song_catalog/song_catalog.parquet").iter_rows(named=True)
    assert row["status"] == "ok" and row["residual_db"] is None
    assert [each["stem"] for each in row["stem_energy_share"]] == ["vocals"]
    assert abs(row["stem_energy_share"][0]["share"] - vocals.share) < 1e-6
    status, _ = bandscope(store, home, "status", song_id).communicate(timeout=600)
    assert "by spleeter-2stems, only these were computed" in status and "vocals" in status
    report, _ = bandscope(store, home, "report", song_id).communicate(timeout=600)
    assert (store / "song_pages" / f"{song_id}.html").is_file(), report

    lost = store / "instrument_tags" / file.name
    lost.unlink()
    code, said = separate("--stem", "accompaniment")
    assert code == 0, said
    assert "Separating again, because stored stems lack accompaniment: 1 song" in said
    assert lost.is_file(), "the song lacked more than a stem"
    assert pl.read_parquet(file)["stem"].unique(maintain_order=True).to_list() == ["vocals", "accompaniment"]
    lineage = read_lineage(opened, STEMS, song_id)
    assert lineage is not None and "stems" not in json.loads(lineage.params), "both stems are all stems"
    assert {path.name for path in to.iterdir()} == {"song (accompaniment).wav", "song (without vocals).wav"}
    code, said = separate()
    assert code == 0 and "are done" in said, "the stored stems are all that there are"
