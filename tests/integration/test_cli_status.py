"""Status: whole ids in a narrow terminal, the state of every song, and the details of one song."""

import io
from pathlib import Path

import dagster as dg
import pytest
from command_line import CommandLine
from instances import new_instance
from rich.console import Console
from song_rows import block_rows, lineage, song_row, tag_row

from bandscope_dagster.cli import status_remarks
from bandscope_dagster.cli.status import print_overview, print_songs
from bandscope_dagster.orchestration.outdated import CODE_VERSION_TAG
from bandscope_dagster.orchestration.partitions import register_uploads
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.separation.quality import SeparationQuality, StemQuality
from bandscope_dagster.songs.find import NoSuchSong, find_songs
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    DECODED_WAVEFORMS,
    INSTRUMENT_TAGS,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
)
from bandscope_dagster.storage.tables.song_files import list_song_files
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from

PRESENT_FROM = present_from(0.4, AUDIBLE_DB)
LONGEST = "a-song-whose-file-name-is-longer-than-40-0123456789ab"  # as long as an id gets
DONE = "done-song-0123456789ab"
PARTIAL = "partial-0123456789ab"
NEW = "new-0123456789ab"
REJECTED = "rejected-0123456789ab"
UNAVAILABLE = "unavailable-0123456789ab"
TRUNCATED = "truncated: 1.20 of 6.08 s can be decoded (3 damaged packets); upload it again"

QUALITY = SeparationQuality(
    -41.46,
    (
        StemQuality("vocals", 0.8, 0.5, -9.0, -8.25, silent=False),
        StemQuality("accompaniment", 0.2, 0.25, None, None, silent=True),
    ),
)


def put(store: ObjectStore, song: str, **changes: object) -> None:
    facts = {
        "filename": f"{song[:4]} [mix].wav",
        "upload_key": f"uploads/{song}.wav",
        "size_bytes": 1_234_567,
        "codec": "flac",
        "channels": 2,
        "peak": 0.9,
        "loudness_lufs": -14.26,
    }
    write_table(store, SONGS, [song_row(song, **(facts | changes))], lineage(song))


def analyze(store: ObjectStore, song: str, quality: SeparationQuality | None = QUALITY) -> None:
    """Every analysis table, with the accompaniment at a quarter of the vocals' energy."""
    with AudioTableWriter(store, DECODED_WAVEFORMS, lineage(song)) as writer:
        [row] = block_rows(song, 0, ("mixture",))
        writer.add([{name: row[name] for name in DECODED_WAVEFORMS.names}])
        writer.commit()
    with AudioTableWriter(store, STEMS, lineage(song)) as writer:
        for block in range(2):
            writer.add(block_rows(song, block, ("vocals", "accompaniment")))
        writer.commit({QUALITY_NOTE: quality.to_json()} if quality else {})
    tags = [tag_row(song, name, score, 0.0) for name, score in (("piano", 0.25), ("guitar", 0.5))]
    tags += [tag_row(song, "guitar", 0.7, 3.0), tag_row(song, "flute", None, 0.0)]
    write_table(store, INSTRUMENT_TAGS, tags, lineage(song))
    write_table(
        store, STEM_INSTRUMENT_TAGS, [tag_row(song, "vocals", 0.9, 0.0, source="vocals")], lineage(song)
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    store = open_store(str(tmp_path_factory.mktemp("store")))
    put(store, DONE, title="Falcon [69]", duration_s=185.4)
    analyze(store, DONE)
    put(store, LONGEST, duration_s=7199.6)
    analyze(store, LONGEST, quality=None)
    put(store, PARTIAL, duration_s=59.6, loudness_lufs=None)
    write_table(store, INSTRUMENT_TAGS, [], lineage(PARTIAL))
    put(store, NEW, duration_s=0.7)
    put(store, REJECTED, error=TRUNCATED, duration_s=None)
    for table in ANALYSIS_TABLES:
        write_error_row(store, table, REJECTED, f"upstream: {TRUNCATED}", lineage(REJECTED))
    put(store, UNAVAILABLE, error="unavailable: the storage did not answer", duration_s=None)
    return store


def overview(store: ObjectStore, width: int = 80) -> list[str]:
    text = io.StringIO()
    files, uploads = list_song_files(store, SOURCES), list_uploads(store)
    print_overview(files, uploads, Console(file=text, width=width))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def details(store: ObjectStore, pattern: str, width: int = 80, *, paths: bool = True) -> str:
    text = io.StringIO()
    print_songs(store, Console(file=text, width=width), pattern, PRESENT_FROM, paths=paths)
    return text.getvalue()


def line_of(song: str, lines: list[str]) -> list[str]:
    [line] = [line for line in lines if line.startswith(song)]
    return line.split(maxsplit=3)


def test_a_narrow_terminal_shows_whole_ids_and_whole_headers(store: ObjectStore) -> None:
    lines = overview(store, width=80)
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["song", "length", "LUFS", "status"]
    for song in (LONGEST, DONE, PARTIAL, NEW, REJECTED, UNAVAILABLE):
        assert any(line.startswith(f"{song} ") for line in lines), song
    assert not any("…" in line for line in lines)


def test_a_wide_terminal_shows_every_song_in_one_line(store: ObjectStore) -> None:
    lines = overview(store, width=140)
    assert len(lines) == 2 + 6
    assert all(line.rstrip().endswith("; upload gone") for line in lines[2:])  # the store has no uploads
    lines = [line.rstrip().removesuffix("; upload gone") for line in lines]
    assert line_of(DONE, lines)[1:] == ["3:05", "-14.3", "ok"]
    assert line_of(LONGEST, lines)[1:] == ["1:59:59", "-14.3", "ok"]
    assert line_of(PARTIAL, lines)[1:] == ["0:59", "partial:", "no waveform, stems, stem tags"]
    assert line_of(NEW, lines)[1:] == ["0:00.7", "-14.3", "partial: not analyzed"]
    assert line_of(REJECTED, lines)[1:] == ["rejected:", "truncated"]
    assert line_of(UNAVAILABLE, lines)[1:] == ["failed:", "unavailable"]


def test_without_songs_it_says_what_to_do(tmp_path: Path) -> None:
    text = " ".join(overview(open_store(str(tmp_path))))
    assert "bandscope ingest" in text and "bandscope run" in text


def test_the_details_of_one_song(store: ObjectStore) -> None:
    text = details(store, DONE, width=200)
    assert text.startswith("Falcon [69] ─")
    assert f"song      {DONE}\nstatus    ok\n" in text
    assert (
        f"upload    uploads/{DONE}.wav, 1.2 MB, 2026-01-02 03:04 UTC; gone\n" in text
    )  # the store has no uploads
    assert "audio     3:05, flac, 44100 Hz, 2-channel, peak 0.900, -14.3 LUFS\n" in text
    assert "stems     by model ü, residual -41.5 dB\n" in text
    assert "          vocals         80% of the energy, peak 0.500, -8.2 LUFS\n" in text
    assert "          accompaniment  20% of the energy, peak 0.250, silent\n" in text
    assert "heard in  mixture: guitar 0.60, flute\n" in text  # piano is below the threshold
    assert "heard in  vocals: vocals 0.90\n" in text
    for table in (SONGS, *ANALYSIS_TABLES):
        assert f"  {table.name:22}{store.uri(f'{table.name}/{DONE}.parquet')}\n" in text
    assert ".parquet" not in details(store, DONE, paths=False)
    assert "missing   decoded_waveforms, stems" in details(store, PARTIAL, paths=False)


def test_stems_without_a_measured_quality_are_left_out(store: ObjectStore) -> None:
    text = details(store, LONGEST)
    assert "of the energy" not in text and "heard in  vocals: vocals 0.90\n" in text


def test_the_lines_about_stems_fit_into_a_narrow_terminal(store: ObjectStore) -> None:
    lines = details(store, DONE, width=80).splitlines()
    assert max(len(line) for line in lines if "of the energy" in line or "residual" in line) <= 80


def test_paths_are_whole_in_a_narrow_terminal(store: ObjectStore) -> None:
    assert store.uri(f"stem_instrument_tags/{LONGEST}.parquet") in details(store, LONGEST, width=40)


def test_a_rejected_song_says_why(store: ObjectStore) -> None:
    text = details(store, REJECTED, width=200)
    assert "status    rejected: truncated\n" in text and f"problem   songs: {TRUNCATED}\n" in text
    assert text.count(TRUNCATED) == 1, "not once a table"
    assert "audio " not in text and "stems  " not in text.partition("  songs")[0]


def test_the_details_say_of_an_upload_that_it_is_gone_or_replaced_as_the_list_does(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for name in ("kept", "replaced", "gone"):
        with store.create(f"uploads/{name}.wav") as file:
            file.write(b"a")
            file.commit()
    for upload in list_uploads(store).uploads:
        put(store, upload.song_id, upload_key=upload.key, filename=upload.filename)
    store.delete("uploads/gone.wav")
    with store.create("uploads/replaced.wav") as file:
        file.write(b"other")
        file.commit()
    for name, state in (("kept", ""), ("replaced", "; replaced"), ("gone", "; gone")):
        assert f"03:04 UTC{state}\n" in details(store, f"{name}.wav", width=200)
        [line] = [line for line in overview(store, width=200) if line.startswith(name)]
        assert line.endswith(f"; upload{state[1:]}" if state else "partial: not analyzed")


def test_missing_results_are_named(store: ObjectStore) -> None:
    text = details(store, PARTIAL, width=200)
    assert "too quiet for a loudness" in text
    assert "  stems                 not computed\n" in text
    assert "heard in" not in text


def test_songs_are_found_by_id_file_name_title_and_glob(store: ObjectStore) -> None:
    assert find_songs(store, DONE) == [DONE]
    assert find_songs(store, "done [mix].wav") == [DONE]
    assert find_songs(store, "Falcon [69]") == [DONE]
    assert find_songs(store, "Falcon*") == [DONE]
    assert set(find_songs(store, "*-0123456789ab")) == {
        LONGEST,
        DONE,
        PARTIAL,
        NEW,
        REJECTED,
        UNAVAILABLE,
    }
    assert find_songs(store, "falcon*") == find_songs(store, "alcon") == [DONE]
    with pytest.raises(NoSuchSong, match=r"'Falcn \[69\]'; similar names: Falcon \[69\]"):
        find_songs(store, "Falcn [69]")


@pytest.fixture
def bandscope(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    monkeypatch.setenv("BANDSCOPE_STORAGE", store.url)
    return CommandLine(monkeypatch, capsys)


def test_the_command(bandscope: CommandLine) -> None:
    done = bandscope("status")
    assert done.code == 0 and DONE in done.out and LONGEST in done.out
    done = bandscope("status", "Falcon*")
    assert done.code == 0 and DONE in done.out and LONGEST not in done.out
    done = bandscope("status", "unknown")
    assert (done.code, done.out) == (1, "")
    assert done.err == "bandscope: no song matches 'unknown'; `bandscope status` lists all songs\n"


def test_the_overview_is_also_printed_if_dagsters_records_cannot_be_opened(
    bandscope: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text("storage: {sqlite: {base_dir: {env: NO_SUCH_FOLDER}}}")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    done = bandscope("status")
    assert done.code == 0 and DONE in done.out
    assert done.out.count("cannot be read") == 1
    assert f"records in {tmp_path} cannot" in done.out and '"NO_SUCH_FOLDER" which is not set' in done.out


def test_outdated_songs_are_those_that_a_run_computes_and_too_many_are_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(tmp_path))
    bandscope, store = CommandLine(monkeypatch, capsys), open_store(str(tmp_path))
    for name in ("kept", "gone"):
        with store.create(f"uploads/{name}.wav") as pending:
            pending.write(name.encode())
    with new_instance() as instance:
        gone, kept = sorted(register_uploads(instance, list_uploads(store)))
        for song in (gone, kept):
            put(store, song)
            old = dg.AssetMaterialization("songs", partition=song, tags={CODE_VERSION_TAG: "0"})
            instance.report_runless_asset_event(old)
        assert f"in force: 2 songs ({gone}, {kept})" in bandscope("status").out
        store.delete("uploads/gone.wav")
        assert f"in force: 1 song ({kept})" in bandscope("status").out
        monkeypatch.setattr(status_remarks, "LOOKED_AT", 1)
        printed = bandscope("status").out
        assert "in force" not in printed and "Not looked for outdated songs" in printed
