"""One song, from its blocks to its tables: the rows that are stored, and the tables that an error leaves."""

import errno
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree.ElementTree import fromstring

import numpy as np
import polars as pl
import pytest
import soundfile
from analyzed_songs import plan, published, rows
from known_models import SHARES, STEMS, Audio, Level, noise

from bandscope_dagster.audio.blocks import BLOCK_FRAMES, SAMPLE_RATE
from bandscope_dagster.audio.flac import decode_flac
from bandscope_dagster.pipeline import song_audio
from bandscope_dagster.pipeline.analysis_state import AnalysisState
from bandscope_dagster.pipeline.background import WriteBehind
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES
from bandscope_dagster.pipeline.song_analysis import BatchContext, SongAnalysis
from bandscope_dagster.separation.out_of_memory import CallLimits
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.separation.streaming import Separated
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, read_note
from bandscope_dagster.storage.tables.schemas import STEMS as STEMS_TABLE
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from bandscope_dagster.tagging.window_queue import WindowQueue

PRESENT_FROM = present_from(0.2, AUDIBLE_DB)
USED = CallLimits("cpu", 4, 2 * SAMPLE_RATE)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def analyze_one(
    store: ObjectStore, mixture: Audio, stems: Audio, *, piece: int = 100_000, tagger: Level | None = None
) -> SongAnalysis:
    """Analyze a song with known stems: push blocks of 10 s of the mixture, then pieces of ``piece`` frames."""
    with ThreadPoolExecutor(2) as encoders, WriteBehind[None](4) as writer:
        windows = WindowQueue(tagger or Level())
        context = BatchContext(
            store, writer, encoders, False, 16, STEMS, windows, load_vocabulary(), PRESENT_FROM
        )
        song = SongAnalysis(plan(store, "song"), context)
        for start in range(0, mixture.shape[1], BLOCK_FRAMES):
            song.add_mixture(mixture[:, start : start + BLOCK_FRAMES])
        for start in range(0, mixture.shape[1], piece):
            part = slice(start, start + piece)
            last = start + piece >= mixture.shape[1]
            song.add_separated(Separated(song.plan.song_id, mixture[:, part], stems[..., part], last, USED))
        song.finish()
        windows.flush()
        song.advance()
        song.wait_for_writer()
    return song


def shares_of(mixture: Audio) -> Audio:
    return SHARES[:, None, None] * mixture


def stored_audio(store: ObjectStore, table: str, source: str | None = None) -> Audio:
    """The blocks of a table's source, decoded and joined."""
    found = rows(store, table, "song")
    if source is not None:
        found = found.filter(pl.col("stem") == source)
    blocks = [decode_flac(row["audio"]["bytes"], row["gain"]) for row in found.iter_rows(named=True)]
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize("piece", [100_000, BLOCK_FRAMES, 10**6])
def test_a_song_is_stored_in_blocks_of_ten_seconds_however_it_comes(store: ObjectStore, piece: int) -> None:
    mixture = noise(23)
    song = analyze_one(store, mixture, shares_of(mixture), piece=piece)

    assert song.error is None
    waveforms = rows(store, "decoded_waveforms", "song")
    assert waveforms["frames"].to_list() == [BLOCK_FRAMES, BLOCK_FRAMES, 3 * SAMPLE_RATE]
    assert waveforms["start_frame"].to_list() == [0, BLOCK_FRAMES, 2 * BLOCK_FRAMES]
    stems = rows(store, "stems", "song")
    assert list(zip(stems["block"], stems["stem"], strict=True)) == [(b, s) for b in range(3) for s in STEMS]
    step = 2**-15
    np.testing.assert_allclose(stored_audio(store, "decoded_waveforms"), mixture, rtol=0, atol=step / 2)
    for stem, share in zip(STEMS, SHARES, strict=True):
        np.testing.assert_allclose(stored_audio(store, "stems", stem), share * mixture, rtol=0, atol=step / 2)


def test_a_stem_above_full_scale_is_stored_unclipped(store: ObjectStore) -> None:
    mixture = noise(2, level=2.5)
    analyze_one(store, mixture, shares_of(mixture))
    loud = rows(store, "stems", "song").filter(pl.col("stem") == "most")
    assert loud["gain"][0] > 1
    assert loud["peak"][0] == pytest.approx(0.75 * 2.5, rel=1e-3)
    np.testing.assert_allclose(stored_audio(store, "stems", "most"), 0.75 * mixture, rtol=0, atol=2**-15)


def test_what_is_published_is_what_is_reported(store: ObjectStore) -> None:
    mixture = noise(11)
    song = analyze_one(store, mixture, shares_of(mixture))
    assert list(song.written) == published(store, "song") == list(ANALYSIS_TABLES)
    for table, written in song.written.items():
        assert written.rows == rows(store, table, "song").height
        head = store.head(written.key)
        assert head is not None
        assert head.size == written.bytes


def test_tags_of_the_mixture_and_of_the_stems_are_tables_of_their_own(store: ObjectStore) -> None:
    mixture = noise(6)
    analyze_one(store, mixture, shares_of(mixture))
    assert set(rows(store, "instrument_tags", "song")["source"]) == {"mixture"}
    assert rows(store, "stem_instrument_tags", "song")["source"].unique(
        maintain_order=True
    ).to_list() == list(STEMS)
    assert Counter(rows(store, "stem_instrument_tags", "song")["instrument"]) == {"guitar": 4, "piano": 4}


def test_the_top_instruments_are_mean_scores_and_of_stems_the_higher_one(store: ObjectStore) -> None:
    mixture = np.concatenate([noise(3, level=0.8), noise(3, level=0.4)], axis=1)
    song = analyze_one(store, mixture, shares_of(mixture))
    scores = {
        table: rows(store, table, "song").group_by("source", "instrument").agg(pl.col("score").mean())
        for table in ("instrument_tags", "stem_instrument_tags")
    }
    tops = {table: song.tags[table].top_instruments for table in scores}
    for table, top in tops.items():
        best = dict(scores[table].group_by("instrument").agg(pl.col("score").max()).iter_rows())
        assert top == pytest.approx(best, abs=1e-3)
        assert list(top) == ["piano", "guitar"]
    assert tops["stem_instrument_tags"]["piano"] < tops["instrument_tags"]["piano"] <= 1


def test_the_mixture_and_the_stems_each_have_a_summary_of_their_tags(store: ObjectStore) -> None:
    mixture = noise(7)  # two windows and a rest of 1 s in each source
    song = analyze_one(store, mixture, shares_of(mixture), tagger=Level(batch=3))
    of_mixture, of_stems = song.tags["instrument_tags"], song.tags["stem_instrument_tags"]
    assert (of_mixture.windows, of_mixture.lost) == (2, 0)
    assert (of_stems.windows, of_stems.labels, of_stems.unmapped) == (4, 8, 0)
    assert (of_stems.device, of_stems.batch) == ("cpu", 3)


def test_a_song_waits_for_its_last_windows_and_other_songs_need_not_wait_for_it(store: ObjectStore) -> None:
    with ThreadPoolExecutor(2) as encoders, WriteBehind[None](4) as writer:
        windows = WindowQueue(Level(batch=3))
        context = BatchContext(
            store, writer, encoders, False, 16, STEMS, windows, load_vocabulary(), PRESENT_FROM
        )
        first, second = (
            SongAnalysis(plan(store, name, tables=["instrument_tags"]), context)
            for name in ("first", "second")
        )
        first.add_mixture(noise(6))
        first.finish()
        assert first.state is AnalysisState.TAGGING, "its two windows wait for a third"
        second.add_mixture(noise(3))
        second.finish()
        first.advance()
        for song in (first, second):
            song.wait_for_writer()
            assert song.state is AnalysisState.DONE
    assert [rows(store, "instrument_tags", name)["start_s"].n_unique() for name in ("first", "second")] == [
        2,
        1,
    ]


def test_a_song_has_a_picture_of_its_sources_and_instruments(store: ObjectStore) -> None:
    mixture = noise(12)
    song = analyze_one(store, mixture, shares_of(mixture))
    assert song.picture is not None and len(song.picture) < 100_000
    texts = [element.text for element in fromstring(song.picture).iter() if element.text]
    assert [text for text in texts if text in ("mixture", *STEMS, "piano")] == ["mixture", *STEMS, "piano"]
    assert "guitar" not in texts, "its score is below what counts as present"


def test_a_silent_song_has_tables_without_tags(store: ObjectStore) -> None:
    song = analyze_one(store, noise(4, level=0.0), shares_of(noise(4, level=0.0)))
    assert song.error is None
    assert rows(store, "stems", "song")["rms_dbfs"].to_list() == [None, None]
    assert rows(store, "instrument_tags", "song").is_empty()
    assert song.tags["instrument_tags"].top_instruments == {}
    assert song.tags["instrument_tags"].unmapped_share == 0


def stored_quality(store: ObjectStore) -> SeparationQuality | None:
    note = read_note(store, STEMS_TABLE, "song", QUALITY_NOTE)
    return None if note is None else SeparationQuality.from_json(note)


@pytest.mark.parametrize("piece", [100_000, BLOCK_FRAMES, 10**6])
def test_the_quality_is_that_of_what_is_stored_and_is_stored_beside_it(
    store: ObjectStore, piece: int
) -> None:
    mixture = noise(23)
    mixture[1] *= 0.25
    song = analyze_one(store, mixture, shares_of(mixture), piece=piece)
    assert song.quality is not None
    stored = stored_audio(store, "decoded_waveforms").astype(np.float64)
    left = stored - sum(stored_audio(store, "stems", stem).astype(np.float64) for stem in STEMS)
    residual = 10 * np.log10(np.square(left).sum() / np.square(stored).sum())
    assert song.quality.residual_db == pytest.approx(residual, abs=1e-6)
    assert -100 < residual < -70, "rounding to 16 bits"
    assert [stem.stem for stem in song.quality.stems] == list(STEMS)
    energies = [np.square(stored_audio(store, "stems", stem).astype(np.float64)).sum() for stem in STEMS]
    for stem, energy in zip(song.quality.stems, energies, strict=True):
        audio = stored_audio(store, "stems", stem.stem)
        gated = audio[:, : audio.shape[1] // 4410 * 4410].T.astype(float)  # complete gating blocks
        import pyloudnorm  # takes a second

        meter = pyloudnorm.Meter(SAMPLE_RATE, filter_class="DeMan")
        assert stem.peak == np.abs(audio).max()
        assert stem.rms_dbfs == pytest.approx(10 * np.log10(energy / audio.size))
        assert stem.loudness_lufs == pytest.approx(meter.integrated_loudness(gated), abs=1e-6)
        assert stem.share == pytest.approx(energy / sum(energies))
        assert not stem.silent
    assert stored_quality(store) == song.quality


def test_a_stem_in_which_nothing_is_heard_is_stored_marked_and_not_tagged(store: ObjectStore) -> None:
    mixture = noise(6)
    song = analyze_one(store, mixture, np.stack([mixture, 0 * mixture]))
    assert song.error is None
    found = stored_quality(store)
    assert found is not None
    assert [stem.silent for stem in found.stems] == [False, True]
    assert found.stems[1].loudness_lufs is None
    assert set(rows(store, "stem_instrument_tags", "song")["source"]) == {STEMS[0]}
    assert not stored_audio(store, "stems", STEMS[1]).any()


def test_a_stem_below_the_smallest_step_is_stored_and_marked_as_silence(store: ObjectStore) -> None:
    mixture = noise(3)
    song = analyze_one(store, mixture, np.stack([mixture, np.full_like(mixture, 1e-6)]))
    assert song.quality is not None
    assert song.quality.stems[1].silent and song.quality.stems[1].rms_dbfs is None
    assert rows(store, "stems", "song").filter(stem=STEMS[1])["rms_dbfs"].to_list() == [None]


def test_a_stem_in_antiphase_is_heard_though_a_tagger_of_its_mono_mix_hears_nothing(
    store: ObjectStore,
) -> None:
    left = noise(6)[:1]
    antiphase = np.concatenate([left, -left])
    song = analyze_one(store, antiphase, np.stack([antiphase, 0 * antiphase]))
    assert song.quality is not None
    assert not song.quality.stems[0].silent
    assert song.quality.stems[0].loudness_lufs is not None
    assert rows(store, "stem_instrument_tags", "song").is_empty()


def test_a_song_that_fails_has_no_quality(store: ObjectStore) -> None:
    def refuse() -> float:
        raise ArithmeticError("too loud")

    mixture = noise(6)
    mixture[:, 4 * SAMPLE_RATE] = 100.0
    assert analyze_one(store, mixture, shares_of(mixture), tagger=Level(refuse)).quality is None


def test_a_block_that_cannot_be_encoded_fails_its_song(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise soundfile.LibsndfileError(7)

    monkeypatch.setattr(song_audio, "encode", fail)
    mixture = noise(12)
    song = analyze_one(store, mixture, shares_of(mixture))
    assert isinstance(song.error, soundfile.LibsndfileError)
    assert published(store, "song") == []


def assert_opens(gate: threading.Event) -> None:
    assert gate.wait(10)


def test_no_more_blocks_are_encoded_ahead_than_the_writer_takes(store: ObjectStore) -> None:
    submitted: list[object] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *task, **options):
            submitted.append(task)
            return super().submit(*task, **options)

    gate = threading.Event()
    with Counting(2) as encoders, WriteBehind[None](3) as writer:
        context = BatchContext(store, writer, encoders, False, 16, (), None, load_vocabulary(), PRESENT_FROM)
        song = SongAnalysis(plan(store, "song", tables=["decoded_waveforms"]), context)

        def push() -> None:
            for _ in range(8):
                song.add_mixture(noise(0.1))
            song.finish()

        writer.submit(lambda: assert_opens(gate))  # storage that blocks
        pusher = threading.Thread(target=push)
        pusher.start()
        time.sleep(0.3)
        assert len(submitted) == 3, "two wait for the writer, one is in hand"
        gate.set()
        pusher.join()
    assert song.error is None
    assert rows(store, "decoded_waveforms", "song")["block"].to_list() == list(range(8))


def test_a_tagger_that_fails_on_one_window_leaves_nothing_of_the_song(store: ObjectStore) -> None:
    def refuse() -> float:
        raise ArithmeticError("too loud")

    mixture = noise(6)
    mixture[:, 4 * SAMPLE_RATE] = 100.0
    song = analyze_one(store, mixture, shares_of(mixture), tagger=Level(refuse))
    assert isinstance(song.error, ArithmeticError)
    assert published(store, "song") == []


def test_a_song_that_fails_midway_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as encoders, WriteBehind[None](4) as writer:
        context = BatchContext(
            store, writer, encoders, False, 16, STEMS, WindowQueue(Level()), load_vocabulary(), PRESENT_FROM
        )
        song = SongAnalysis(plan(store, "song"), context)
        song.add_mixture(noise(10))
        song.fail(ArithmeticError("its separation failed"))
    assert song.state is AnalysisState.FAILED
    assert published(store, "song") == []
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()], "no pending file is left"


@pytest.mark.parametrize("refused", ANALYSIS_TABLES)
def test_where_one_table_cannot_be_written_only_those_before_it_are_published(
    store: ObjectStore, tmp_path: Path, refused: str
) -> None:
    (tmp_path / "store" / refused / "song.parquet").mkdir(parents=True)  # a folder where the file belongs
    mixture = noise(4)
    song = analyze_one(store, mixture, shares_of(mixture))
    assert isinstance(song.error, IsADirectoryError)
    assert refused in str(song.error)
    before = list(ANALYSIS_TABLES[: ANALYSIS_TABLES.index(refused)])
    assert [table for table in published(store, "song") if table != refused] == before
    assert list(song.written) == before
    for table in before:  # complete: a later run with reuse keeps them
        assert rows(store, table, "song").height > 0


@pytest.fixture
def stalled(store: ObjectStore) -> Iterator[tuple[BatchContext, threading.Event]]:
    """A batch with storage that blocks until the event is set, and a tagger's batch that never fills; and the event."""
    opens = threading.Event()
    with ThreadPoolExecutor(2) as encoders, WriteBehind[None](16) as writer:
        windows = WindowQueue(Level(batch=64))
        yield (
            BatchContext(store, writer, encoders, False, 16, STEMS, windows, load_vocabulary(), PRESENT_FROM),
            opens,
        )
        opens.set()


def begin(store: ObjectStore, context: BatchContext, opens: threading.Event) -> SongAnalysis:
    """A song of 6 s in READING, with blocks that wait for the storage."""
    context.writer.submit(lambda: assert_opens(opens))
    song = SongAnalysis(plan(store, "song", tables=["decoded_waveforms", "instrument_tags"]), context)
    song.add_mixture(noise(6))
    assert song.state is AnalysisState.READING
    return song


def test_a_song_is_read_then_tagged_then_committed_then_done(
    store: ObjectStore, stalled: tuple[BatchContext, threading.Event]
) -> None:
    context, opens = stalled
    song = begin(store, context, opens)
    song.advance()
    assert song.state is AnalysisState.READING, "its audio has not ended"
    song.finish()
    assert song.state is AnalysisState.TAGGING
    assert context.windows is not None
    context.windows.flush()
    assert song.state is AnalysisState.TAGGING, "until ``advance`` is called"
    song.advance()
    assert song.state is AnalysisState.COMMITTING
    song.fail(ArithmeticError("too late"))
    assert song.state is AnalysisState.COMMITTING
    opens.set()
    song.wait_for_writer()
    assert song.state is AnalysisState.DONE
    outcome = song.outcome()
    assert isinstance(outcome, SongAnalyzed)
    assert list(outcome.written) == published(store, "song") == ["decoded_waveforms", "instrument_tags"]
    song.fail(ArithmeticError("far too late"))
    assert song.state is AnalysisState.DONE and song.error is None


@pytest.mark.parametrize("ended", [False, True], ids=["while it is read", "while its windows wait"])
def test_a_song_that_fails_is_failing_until_its_files_are_discarded(
    store: ObjectStore, tmp_path: Path, stalled: tuple[BatchContext, threading.Event], ended: bool
) -> None:
    context, opens = stalled
    song = begin(store, context, opens)
    if ended:
        song.finish()
    first = ArithmeticError("the first")
    song.fail(first)
    song.fail(ArithmeticError("the second"))
    song.finish()
    assert song.state is AnalysisState.FAILING
    opens.set()
    song.wait_for_writer()
    assert song.state is AnalysisState.FAILED
    assert song.outcome() == SongFailed("song", first)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


@pytest.mark.parametrize("ended", [False, True], ids=["while it is read", "while its windows wait"])
def test_a_block_that_cannot_be_stored_fails_its_song_and_spares_the_tagger(
    store: ObjectStore,
    tmp_path: Path,
    stalled: tuple[BatchContext, threading.Event],
    monkeypatch: pytest.MonkeyPatch,
    ended: bool,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(AudioTableWriter, "add", full)
    context, opens = stalled
    song = begin(store, context, opens)
    if ended:
        song.finish()
    opens.set()
    context.writer.submit(lambda: None).result(10)
    assert song.state is AnalysisState.FAILED, "the writer thread ends it alone"
    assert song.error is not None and "no space" in str(song.error)
    song.advance()
    assert context.windows is not None
    monkeypatch.setattr(context.windows.tagger, "tag", lambda _: pytest.fail("the song has failed"))
    context.windows.flush()
    song.finish()
    song.fail(ArithmeticError("the second"))
    assert song.outcome() == SongFailed("song", song.error)
    assert "no space" in str(song.error)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_a_song_whose_files_cannot_be_discarded_has_an_outcome(
    store: ObjectStore, stalled: tuple[BatchContext, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: AudioTableWriter) -> None:
        raise PermissionError("cannot be deleted")

    context, opens = stalled
    song = begin(store, context, opens)
    monkeypatch.setattr(AudioTableWriter, "abort", refuse)
    opens.set()
    context.writer.submit(lambda: None).result(10)
    song.fail(error := ArithmeticError("its separation failed"))
    song.wait_for_writer()
    assert song.outcome() == SongFailed("song", error)
