"""Songs in a stream: an error of one song, at any stage, fails no other song, and each song has one outcome."""

import math
import resource
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from analyzed_songs import plan, published, rows, upload
from audio_files import LIMITS, excerpt
from known_models import Audio, Level, Shares, noise

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.audio.cage.child import MEMORY_BYTES
from bandscope_dagster.audio.flac import Quantized, encode
from bandscope_dagster.errors import CannotAnalyze, SongRejected, UploadUnavailable
from bandscope_dagster.pipeline import song_audio, stream
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES, SongPlan
from bandscope_dagster.pipeline.stream import analyze_songs
from bandscope_dagster.separation.streaming import NonFiniteStems
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.tagging.instruments import Instruments
from bandscope_dagster.tagging.musicnn import Musicnn
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.protocol import Tagger
from bandscope_dagster.tagging.registry import present_from
from bandscope_dagster.tagging.window_queue import BadScores

Outcomes = dict[str, SongAnalyzed | SongFailed]

PRESENT_FROM = present_from(0.2, AUDIBLE_DB)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def short_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues so short that a short song fills them."""
    monkeypatch.setattr(stream, "BLOCKS_AHEAD", 1)
    monkeypatch.setattr(stream, "BLOCKS_BEHIND", 2)


def analyze(
    store: ObjectStore,
    plans: Sequence[SongPlan],
    separator: Shares | None = None,
    tagger: Tagger | None = None,
) -> Outcomes:
    """Run the stream to its end; every song must have exactly one outcome."""
    outcomes: Outcomes = {}
    for outcome in analyze_songs(
        plans, store, LIMITS, 16, separator or Shares(), tagger or Level(), PRESENT_FROM
    ):
        song_id = outcome.song_id if isinstance(outcome, SongFailed) else outcome.plan.song_id
        assert song_id not in outcomes, "a song has one outcome"
        outcomes[song_id] = outcome
    assert set(outcomes) == {plan.song_id for plan in plans}
    return outcomes


def unbearable(seconds: float, at_s: float) -> Audio:
    """A song with one moment at which the models of these tests do what their ``at_unbearable`` says."""
    audio = noise(seconds)
    audio[:, round(at_s * SAMPLE_RATE) : round((at_s + 0.1) * SAMPLE_RATE)] = 4.0
    return audio


def assert_failed_alone(store: ObjectStore, outcomes: Outcomes, song_id: str, error: type[Exception]) -> None:
    """This song failed and left nothing; the others have all their tables."""
    failed = outcomes.pop(song_id)
    assert isinstance(failed, SongFailed)
    assert isinstance(failed.error, error), failed.error
    assert published(store, song_id) == []
    for other, outcome in outcomes.items():
        assert isinstance(outcome, SongAnalyzed), outcome
        assert published(store, other) == list(outcome.written) == list(ANALYSIS_TABLES)


def raise_memory_error(_: Audio) -> None:
    raise MemoryError("out of memory on the device")


def spoil(stems: Audio) -> None:
    stems[0, 0, 100] = math.nan


def raise_in_tagger() -> float:
    raise ArithmeticError("the tagger cannot bear it")


MODEL_FAULTS = {
    "the separator raises": (Shares(at_unbearable=raise_memory_error), Level(), MemoryError),
    "the separator's output is not finite": (Shares(at_unbearable=spoil), Level(), NonFiniteStems),
    "the tagger raises": (Shares(), Level(raise_in_tagger), ArithmeticError),
    "the tagger's score is no number": (Shares(), Level(lambda: math.nan), BadScores),
}


@pytest.mark.parametrize("fault", MODEL_FAULTS)
@pytest.mark.parametrize(("batch", "at_s"), [(1, 0.5), (4, 0.5), (4, 18.5)])
def test_a_model_that_fails_on_one_song_fails_that_song_alone(
    store: ObjectStore, fault: str, batch: int, at_s: float
) -> None:
    separator, tagger, error = MODEL_FAULTS[fault]
    separator = Shares(batch, separator.at_unbearable)
    plans = [
        upload(store, "before", noise(4, seed=1)),
        upload(store, "bad", unbearable(21, at_s)),
        upload(store, "after", noise(4, seed=2)),
    ]
    assert_failed_alone(store, analyze(store, plans, separator, tagger), "bad", error)


def test_a_song_may_be_reported_as_failed_while_it_is_still_being_read(store: ObjectStore) -> None:
    plans = [
        upload(store, "bad", unbearable(60, at_s=0.5), tables=["stems"]),
        upload(store, "after", noise(4, seed=2)),
    ]
    assert_failed_alone(store, analyze(store, plans, Shares(1, raise_memory_error)), "bad", MemoryError)


def test_a_batch_of_nothing_but_bad_songs_has_an_outcome_for_each(store: ObjectStore) -> None:
    plans = [upload(store, f"bad-{n}", unbearable(12, at_s=n)) for n in range(3)]
    outcomes = analyze(store, plans, Shares(2, raise_memory_error))
    assert all(isinstance(outcome, SongFailed) for outcome in outcomes.values())


def replaced(store: ObjectStore, song: SongPlan) -> None:
    upload(store, song.song_id, noise(4, seed=9))


def gone(store: ObjectStore, song: SongPlan) -> None:
    store.delete(song.upload_key)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (replaced, CannotAnalyze, "the upload has changed since songs was computed"),
        (gone, UploadUnavailable, "no longer in the store"),
    ],
)
def test_an_upload_that_changed_since_songs_described_it_fails_that_song_alone(
    store: ObjectStore,
    change: Callable[[ObjectStore, SongPlan], None],
    error: type[Exception],
    message: str,
) -> None:
    plans = [upload(store, name, noise(4, seed)) for seed, name in enumerate(("before", "changed", "after"))]
    change(store, plans[1])
    outcomes = analyze(store, plans)
    failed = outcomes["changed"]
    assert isinstance(failed, SongFailed)
    assert message in str(failed.error)
    assert_failed_alone(store, outcomes, "changed", error)


def test_a_song_that_fails_while_it_is_decoded_leaves_nothing(store: ObjectStore) -> None:
    whole = upload(store, "whole", noise(4, seed=1))
    infinite = noise(25)
    infinite[0, 24 * SAMPLE_RATE] = math.inf  # found after two blocks were passed on
    outcomes = analyze(store, [upload(store, "breaks", infinite), whole])
    assert_failed_alone(store, outcomes, "breaks", SongRejected)


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Writes beyond ``size`` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_song_that_does_not_fit_on_the_disk_fails_alone_and_costs_no_more_model_time(
    store: ObjectStore, tmp_path: Path, short_queues: None
) -> None:
    plans = [
        upload(store, "before", noise(1, seed=1)),
        upload(store, "large", noise(120), format="MP3"),  # its stems are twenty times as large
        upload(store, "after", noise(1, seed=2)),
    ]
    stored = store.head(plans[1].upload_key)
    assert stored is not None and stored.size < MEMORY_BYTES
    separator = Shares()
    with no_file_larger_than(MEMORY_BYTES):  # the memory through which a decoder sends blocks
        outcomes = analyze(store, plans, separator)
    assert_failed_alone(store, outcomes, "large", OSError)
    assert len(separator.calls) < 100, "a segment starts every second"
    assert not list((tmp_path / "store").rglob("*.part")), "no pending file is left"


def test_a_table_that_cannot_be_published_fails_its_song_and_the_tables_before_it_stay(
    store: ObjectStore, tmp_path: Path
) -> None:
    plans = [upload(store, name, noise(4, seed)) for seed, name in enumerate(("before", "blocked", "after"))]
    (tmp_path / "store/instrument_tags/blocked.parquet").mkdir(parents=True)
    outcomes = analyze(store, plans)
    failed = outcomes["blocked"]
    assert isinstance(failed, SongFailed)
    assert isinstance(failed.error, IsADirectoryError)
    assert published(store, "blocked")[:2] == ["decoded_waveforms", "stems"]
    assert store.head("stem_instrument_tags/blocked.parquet") is None
    assert published(store, "before") == published(store, "after") == list(ANALYSIS_TABLES)


def test_segments_of_several_songs_share_batches_and_no_song_hears_another(tmp_path: Path) -> None:
    songs = {"a": noise(2.5, 1), "b": noise(0.7, 2), "c": noise(11.3, 3), "d": noise(3.0, 4)}

    def run(batch: int) -> tuple[ObjectStore, list[int]]:
        store = open_store(str(tmp_path / str(batch)))
        separator = Shares(batch)
        outcomes = analyze(store, [upload(store, name, audio) for name, audio in songs.items()], separator)
        assert all(isinstance(outcome, SongAnalyzed) for outcome in outcomes.values())
        return store, separator.calls

    one_by_one, calls = run(1)
    shared, shared_calls = run(5)
    assert set(shared_calls[:-1]) == {5}, "no batch but the last is half empty"
    assert sum(shared_calls) == len(calls)
    for table in ANALYSIS_TABLES:
        for name in songs:
            found, expected = rows(shared, table, name), rows(one_by_one, table, name)
            assert found.drop("detected_at", strict=False).equals(expected.drop("detected_at", strict=False))


@pytest.mark.parametrize("embedded", [Instruments, Musicnn], ids=["bandscope-instruments", "musicnn"])
def test_a_songs_tags_do_not_depend_on_the_songs_beside_it(
    tmp_path: Path, embedded: type[Instruments] | type[Musicnn]
) -> None:
    tagger = embedded("cpu")
    songs = {"a": excerpt()[:, : 5 * SAMPLE_RATE], "b": excerpt()[:, -3 * SAMPLE_RATE :]}

    def tags(names: str) -> dict[str, list[tuple[object, ...]]]:
        store = open_store(str(tmp_path / names))
        analyze(store, [upload(store, name, songs[name]) for name in names], Shares(3), tagger)
        return {
            name: [
                row
                for table in ("instrument_tags", "stem_instrument_tags")
                for row in rows(store, table, name).drop("detected_at").rows()
            ]
            for name in names
        }

    assert tags("ba") == tags("a") | tags("b")  # scores to the last bit


@pytest.mark.parametrize("other", ["cpu", "cuda"])
def test_models_on_the_cpu_wait_while_blocks_are_encoded_and_others_do_not(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    encoding: list[str] = []  # the blocks that are being encoded
    beside: list[int] = []  # the number of them, at each run of the model

    def slowly(block: Quantized) -> bytes:
        encoding.append("one")
        time.sleep(0.05)
        encoding.pop()
        return encode(block)

    class Looks(Shares):
        def separate(self, segments: torch.Tensor) -> torch.Tensor:
            beside.append(len(encoding))
            return super().separate(segments)

    monkeypatch.setattr(song_audio, "encode", slowly)
    outcomes = analyze(store, [upload(store, "one", noise(35))], Looks(), Level(device=other))
    assert isinstance(outcomes["one"], SongAnalyzed)
    assert any(beside) == (other != "cpu")


def test_songs_are_reported_while_others_are_still_to_come(store: ObjectStore) -> None:
    plans = [upload(store, f"song-{n}", noise(1, seed=n)) for n in range(30)]
    taken: list[str] = []

    def in_turn() -> Iterator[SongPlan]:
        for song in plans:
            taken.append(song.song_id)
            yield song

    first = next(outcomes := analyze_songs(in_turn(), store, LIMITS, 16, Shares(), Level(), PRESENT_FROM))
    assert isinstance(first, SongAnalyzed)
    assert len(taken) < len(plans)
    outcomes.close()


def test_a_caller_that_stops_early_leaves_no_thread_behind(store: ObjectStore) -> None:
    before = threading.active_count()
    plans = [upload(store, f"song-{n}", noise(1, seed=n)) for n in range(10)]
    outcomes = analyze_songs(plans, store, LIMITS, 16, Shares(), Level(), PRESENT_FROM)
    next(outcomes)
    outcomes.close()
    assert threading.active_count() == before


def test_stored_stems_that_are_gone_fail_that_song_alone(store: ObjectStore) -> None:
    analyze(store, [upload(store, name, noise(4, seed)) for seed, name in enumerate(("whole", "gone"))])
    plans = [plan(store, name, tables=["stem_instrument_tags"]) for name in ("gone", "whole")]
    before = rows(store, "stem_instrument_tags", "whole").drop("detected_at")
    store.delete("stems/gone.parquet")

    outcomes = {
        o.song_id if isinstance(o, SongFailed) else o.plan.song_id: o
        for o in analyze_songs(plans, store, LIMITS, 16, None, Level(), PRESENT_FROM)
    }

    failed = outcomes["gone"]
    assert isinstance(failed, SongFailed)
    assert isinstance(failed.error, CannotAnalyze)
    assert "materialize stems" in str(failed.error)
    assert isinstance(outcomes["whole"], SongAnalyzed)
    assert rows(store, "stem_instrument_tags", "whole").drop("detected_at").equals(before)


def test_a_song_four_times_as_long_takes_no_more_memory(store: ObjectStore, short_queues: None) -> None:
    peaks: list[int] = []
    for seconds in (40, 160):
        audio = np.tile(noise(40), seconds // 40)
        song = upload(store, f"of-{seconds}-s", audio, tables=["decoded_waveforms", "stems"])
        del audio
        tracemalloc.start()
        analyze(store, [song])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 120 s of the mixture alone are 42 MB of float32, and of its stems 85 MB. The queues are more or less full in each
    # run, which changes the peak by up to 25 MB.
    assert peaks[1] < peaks[0] + 35e6, f"peaks of {peaks} bytes"
