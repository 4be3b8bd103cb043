"""docs/queries.md: its snippets run as printed, on a local disk and on S3, and give the right answers."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from audio_files import excerpt
from catalog_songs import CATALOGS, reject
from counting_proxy import CountingProxy, run_counting_proxy
from page_songs import noise, store_song
from s3_server import S3Place, S3Server
from song_rows import NOW, lineage, song_row, tag_row

from bandscope_dagster.audio.flac import dequantize, quantize
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import ANALYSIS_TABLES, SONG_FAILURES, SONGS
from bandscope_dagster.storage.tables.song_tables import write_table

PAGE = Path(__file__).parents[2] / "docs" / "queries.md"
SECTIONS = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
SETUP = "Where the store is"
BYTES = "How loud is each stem over time?"

FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

Namespace = dict[str, Any]
Check = Callable[[Namespace, "Collection"], None]


@dataclass(frozen=True, slots=True)
class Collection:
    """Songs with known content, in a local store."""

    local: ObjectStore
    stems: dict[str, dict[str, np.ndarray]]  # song → stem → stored samples, (2, frames)
    mixtures: dict[str, np.ndarray]


def snippets(text: str) -> str:
    """The Python of a section."""
    return "\n".join(FENCE.findall(text))


def banjo(song: str, layer: str, seconds: float = 3.0) -> dict[str, Any]:
    return tag_row(song, "banjo", 0.9, 0.0, layer=layer, end_s=seconds)


TAGS = {
    "raga": lambda song: [
        banjo(song, "foreground", 12.0),
        tag_row(song, "tabla", 0.7, 6.0, layer="middle_ground", end_s=9.0),
        tag_row(song, "tabla", 0.6, 30.0, layer="background", end_s=33.0),
        tag_row(song, "flute", 0.1, 0.0),
        tag_row(song, "banjo", 0.8, 12.0, source="accompaniment"),
    ],
    "sung": lambda song: [
        banjo(song, "foreground", 12.0),
        tag_row(song, "drone", 0.1, 0.0, family=None, mapped=False, end_s=12.0),
        tag_row(song, "singing", 0.8, 0.0, source="vocals", family="voice"),
        tag_row(song, "drone", 0.1, 0.0, source="vocals", family=None, mapped=False),
        tag_row(song, "singing", 0.6, 51.0, source="vocals", family="voice"),
    ],
    "temple": lambda song: [banjo(song, "background")],
    "long": lambda song: [banjo(song, "foreground", 12.0)],
}
SECONDS = {"raga": 60.0, "sung": 61.5, "temple": 60.0, "long": 101.0}
GENRES = {"raga": "Raga", "sung": " raga ", "temple": None, "long": "", "hush": "Raga"}
TAKEN = [*SECONDS, "hush"]
"""The songs with results; the last one has a silent stem and no instrument."""


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Four songs of at least a minute of real music, a short one, one rejected song and one failed song."""
    store = open_store(str(tmp_path_factory.mktemp("queries") / "store"))
    stored: dict[str, dict[str, np.ndarray]] = {}
    mixtures: dict[str, np.ndarray] = {}
    for number, (song, seconds) in enumerate(SECONDS.items()):
        frames = round(seconds * 44_100)
        music = np.tile(excerpt(), (1, 18))[:, number * 9000 :][:, :frames]
        stems = {"accompaniment": music * np.float32(3 - number / 2), "vocals": music[::-1] * np.float32(0.2)}
        left = noise(seconds, 10 ** (-(50 + number) / 20) * 0.1)
        facts = {"title": song, "genre": GENRES[song]}
        mixture = store_song(store, song, stems, TAGS[song](song), beside=left, **facts)
        stored[song] = {stem: as_stored(samples) for stem, samples in stems.items()}
        mixtures[song] = as_stored(mixture)
    hush = {"accompaniment": noise(3.0, 0.01), "vocals": noise(3.0, 0.0)}
    mixtures["hush"] = as_stored(store_song(store, "hush", hush, [], title="hush", genre=GENRES["hush"]))
    stored["hush"] = {stem: as_stored(samples) for stem, samples in hush.items()}
    list(refresh(store, CATALOGS))
    reject(store, "hiss", "truncated: 1 of 2 s")
    write_table(store, SONGS, [song_row("broken")], lineage("broken"))
    failure = {"song_id": "broken", "table": "stems", "stage": "stems", "reason": "MemoryError"}
    write_table(store, SONG_FAILURES, [failure | {"message": "12 GB", "since": NOW}], lineage("broken"))
    list(refresh(store, CATALOGS))
    return Collection(store, stored, mixtures)


def as_stored(audio: np.ndarray) -> np.ndarray:
    """The audio as the tables hold it, quantised block by block; (2, frames)."""
    blocks = [audio[:, start : start + 441_000] for start in range(0, audio.shape[1], 441_000)]
    return np.concatenate([dequantize(quantize(block)) for block in blocks], axis=1)


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[CountingProxy]:
    with run_counting_proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module", params=["local", "s3"])
def variables(
    request: pytest.FixtureRequest, collection: Collection, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment variables of an analyst, as on the page."""
    own = {"HF_HOME": str(tmp_path_factory.mktemp("hf")), "HF_HUB_OFFLINE": "1"}
    if request.param == "local":
        return own | {"BANDSCOPE_STORAGE": collection.local.url}
    server, proxy = request.getfixturevalue("s3_server"), request.getfixturevalue("proxy")
    place = server.place(proxy.endpoint)
    store = place.open()
    for found in collection.local.list():
        with store.create(found.key) as pending:
            pending.write(collection.local.read(found.key))
    return own | analyst_on(place)


def analyst_on(place: S3Place) -> dict[str, str]:
    """The variables that the page exports."""
    known = place.environment()
    more = {
        "BANDSCOPE_STORAGE": place.url,
        "AWS_DEFAULT_REGION": known["AWS_REGION"],
        "AWS_ALLOW_HTTP": "true",
    }
    return known | more


@pytest.fixture(scope="module")
def answers(variables: dict[str, str]) -> Iterator[dict[str, Namespace]]:
    """Heading → all names after its snippets ran; the sections run in order."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        names: Namespace = {}
        after: dict[str, Namespace] = {}
        for heading, text in SECTIONS:
            exec(compile(snippets(text), f"queries.md, {heading}", "exec"), names)
            after[heading] = dict(names)
        yield after


def check_setup(names: Namespace, known: Collection) -> None:
    assert names["fs"].exists(f"{names['root']}/song_catalog/song_catalog.parquet")


def check_banjo(names: Namespace, known: Collection) -> None:
    assert names["found"].rows() == [("raga", "raga", None, 60.0)]
    for other in ("found_by_duckdb", "found_by_pandas"):
        assert names[other].song_id.tolist() == ["raga"]


def check_timeline(names: Namespace, known: Collection) -> None:
    rows = [(name, start, end, round(score, 3)) for name, start, end, score in names["timeline"].rows()]
    assert rows == [("banjo", 0.0, 12.0, 0.9), ("tabla", 6.0, 9.0, 0.7), ("tabla", 30.0, 33.0, 0.6)]


def check_collection(names: Namespace, known: Collection) -> None:
    rows = names["collection"].values.tolist()
    assert rows == [["banjo", 4, pytest.approx(39 / 60)], ["tabla", 1, pytest.approx(6 / 60)]]


def check_together(names: Namespace, known: Collection) -> None:
    # Of five tagged songs, four have a banjo: one with singing, one with a tabla.
    assert names["together"].values.tolist() == [["banjo", "singing", 1, 1.25], ["banjo", "tabla", 1, 1.25]]
    assert names["at_once"].values.tolist() == [["banjo", "tabla", 1, 3.0]]


def check_transitions(names: Namespace, known: Collection) -> None:
    # raga: banjo at 0 s, tabla at 6 s and again at 30 s, which no other instrument follows.
    assert names["transitions"].rows() == [("banjo", "tabla", 1, 1, 6.0, 1.0)]


def check_genres(names: Namespace, known: Collection) -> None:
    assert names["genres"].rows() == [
        ("(none)", "banjo", 2, 2, 1.0),
        ("raga", "banjo", 2, 3, 0.67),
        ("raga", "singing", 1, 3, 0.33),
        ("raga", "tabla", 1, 3, 0.33),
    ]


def check_voices(names: Namespace, known: Collection) -> None:
    energies = {
        song: {stem: float((samples.astype(float) ** 2).sum()) for stem, samples in stems.items()}
        for song, stems in known.stems.items()
    }
    shares = {song: each["vocals"] / sum(each.values()) for song, each in energies.items()}
    rows = {song: (level, share) for song, level, _, share in names["voices"].rows()}
    assert set(rows) == set(TAKEN)
    assert {song: share for song, (_, share) in rows.items()} == pytest.approx(shares, rel=1e-4)
    levels = sorted(level for level, _ in rows.values())
    assert names["sung"].rows() == [(0, 5, pytest.approx(levels[2]))]
    order = np.argsort(np.argsort([[*values] for values in rows.values()], axis=0), axis=0)
    assert names["correlation"] == pytest.approx(np.corrcoef(order.T)[0, 1])


def check_similar(names: Namespace, known: Collection) -> None:
    # raga: 12 s of banjo and 6 s of tabla; sung: 12 s of banjo and 6 s of singing; the others: only banjo.
    alone = round(12 / np.hypot(12, 6), 3)
    assert names["similar"].rows() == [
        ("long", "long", alone),
        ("temple", "temple", alone),
        ("sung", "sung", 0.8),
    ]
    assert names["nearest"]("hush").is_empty() and names["nearest"]("hiss").is_empty()


def check_quality(names: Namespace, known: Collection) -> None:
    worst = names["worst"]
    by_residual = sorted(SECONDS, key=lambda song: residual(known, song), reverse=True)
    assert worst["song_id"].to_list() == [*by_residual, "hush"], "the sum of the last one is exact"
    assert worst["residual_db"].to_list() == sorted(worst["residual_db"], reverse=True)
    assert names["silent"].rows() == [("hush", "hush", "vocals")]
    assert names["unmapped"].values.tolist() == [["tagger", "drone", 2, 1]]


def check_loudness(names: Namespace, known: Collection) -> None:
    import pyloudnorm

    meter = pyloudnorm.Meter(44_100, filter_class="DeMan")
    loud = sorted(meter.integrated_loudness(audio.T.astype(float)) for audio in known.mixtures.values())
    quietest, median, loudest, worst = names["loudness"].row(0)
    assert (quietest, median, loudest) == pytest.approx((loud[0], np.median(loud), loud[-1]), abs=0.01)
    assert worst == pytest.approx(max(residual(known, song) for song in SECONDS), abs=1e-3)
    stems = names["stems"].rows(named=True)
    assert [(row["separator"], row["stem"], row["silent"]) for row in stems] == [
        ("m", "accompaniment", 0),
        ("m", "vocals", 1),
    ]
    assert sum(row["share"] for row in stems) == pytest.approx(1.0)
    sounding = [stems["vocals"] for song, stems in known.stems.items() if song != "hush"]
    of_vocals = [meter.integrated_loudness(vocals.T.astype(float)) for vocals in sounding]
    assert stems[1]["loudness_lufs"] == pytest.approx(np.median(of_vocals), abs=0.05)


def check_errors(names: Namespace, known: Collection) -> None:
    assert dict(names["states"].rows()) == {"ok": 5, "rejected": 1, "failed": 1}
    assert names["reasons"].to_dict() == {("songs", "truncated"): 1, ("stems", "MemoryError"): 1}
    assert sorted(names["errors"].song_id) == ["broken", "hiss"]
    by_table = names["by_table"].groupby("song_id").tables.agg(list).to_dict()
    assert by_table == {"broken": ["stems"], "hiss": ["songs", *(table.name for table in ANALYSIS_TABLES)]}


def check_levels(names: Namespace, known: Collection) -> None:
    peaks = [
        (song, stem, pytest.approx(np.abs(samples).max(), abs=2**-14))
        for song, stems in sorted(known.stems.items())
        for stem, samples in sorted(stems.items())
    ]
    rows = names["levels"].rows()
    assert [row[:3] for row in rows] == peaks
    assert [tuple(row.values()) for row in names["levels_by_pyarrow"].to_pylist()] == peaks
    assert [row[:3] for row in names["levels_by_duckdb"]] == peaks
    assert [row[3] for row in names["levels_by_duckdb"]] == [row[3] for row in rows]
    third = known.stems["raga"]["vocals"][:, 2 * 441_000 : 3 * 441_000].astype(float)
    assert dict(zip([row[:2] for row in rows], [row[3] for row in rows], strict=True))["raga", "vocals"][
        2
    ] == pytest.approx(10 * np.log10((third**2).mean()), abs=0.01)


def check_excerpt(names: Namespace, known: Collection) -> None:
    stem = known.stems["raga"]["accompaniment"]
    assert np.abs(stem).max() > 1.0, "beyond full scale: the gain matters"
    assert np.array_equal(names["ten_seconds"].T, stem[:, 5 * 44_100 : 15 * 44_100])
    end = names["excerpt"]("sung", "vocals", 58, 10).T
    assert np.array_equal(end, known.stems["sung"]["vocals"][:, 58 * 44_100 :])


def check_envelope(names: Namespace, known: Collection) -> None:
    steps = names["loudness_over_time"]
    assert steps["start_s"].to_list() == pytest.approx([step / 10 for step in range(600)])
    part = known.stems["raga"]["accompaniment"][:, 150 * 4410 : 151 * 4410].astype(float)
    assert steps["rms_dbfs"][150] == pytest.approx(10 * np.log10((part**2).mean()), abs=1e-3)


def check_residual(names: Namespace, known: Collection) -> None:
    assert names["residual"] == pytest.approx(residual(known, "raga"), abs=1e-3)
    catalog = names["pl"].read_parquet(f"{names['STORE']}/song_catalog/*.parquet")
    stored = dict(catalog.select("song_id", "residual_db").iter_rows())
    assert names["residual"] == pytest.approx(stored["raga"], abs=1e-4), "the recipe gives the stored number"


def residual(known: Collection, song: str) -> float:
    mixture = known.mixtures[song].astype(np.float64)
    left = mixture - sum(known.stems[song].values())
    return 10 * np.log10((left**2).sum() / (mixture**2).sum())


def check_joined(names: Namespace, known: Collection) -> None:
    def level(song: str, stem: str, *blocks: int) -> Any:
        parts = [known.stems[song][stem][:, b * 441_000 : (b + 1) * 441_000].astype(float) for b in blocks]
        return pytest.approx(np.median([10 * np.log10((part**2).mean()) for part in parts]), abs=0.01)

    assert names["loud"].rows() == [
        ("raga", "accompaniment", "banjo", 1, level("raga", "accompaniment", 1)),
        ("sung", "vocals", "singing", 2, level("sung", "vocals", 0, 5)),
    ]


def check_datasets(names: Namespace, known: Collection) -> None:
    first = next(iter(names["vocals"]))
    assert first["audio"]["bytes"][:4] == b"fLaC", "a player can play the bytes"
    from datasets import Audio

    assert names["dataset"].features["audio"] == Audio(decode=False), "without a cast"
    blocks = all_blocks()
    assert list(names["rms"]) == blocks
    assert (
        names["shapes"]
        == [(4, 2, 441_000)] * (len(blocks) // 4) + [(len(blocks) % 4, 2, 441_000)][: len(blocks) % 4]
    )
    block = known.stems["sung"]["vocals"][:, 441_000 : 2 * 441_000].astype(float)
    assert names["rms"]["sung", 1] == pytest.approx(np.sqrt((block**2).mean()), rel=1e-4)


def all_blocks() -> list[tuple[str, int]]:
    """Song and number of every block of the songs with results."""
    seconds = SECONDS | {"hush": 3.0}
    return [(song, block) for song in sorted(TAKEN) for block in range(int(-(-seconds[song] // 10)))]


def check_blocks(names: Namespace, known: Collection) -> None:
    import torch

    assert names["seen"] == len(all_blocks()), "two workers, and each block once"
    blocks = names["Blocks"]("accompaniment")
    torch.manual_seed(1)
    first, second = ([block.numpy() for block in blocks] for _ in range(2))
    assert len(first) == len(second) == len(all_blocks())
    assert not all(map(np.array_equal, first, second)), "another order in each pass"

    def known_blocks() -> Iterator[bytes]:
        for song in TAKEN:
            whole = known.stems[song]["accompaniment"]
            for start in range(0, whole.shape[1], 441_000):
                part = whole[:, start : start + 441_000]
                yield np.pad(part, ((0, 0), (0, 441_000 - part.shape[1]))).astype(np.float32).tobytes()

    expected = sorted(known_blocks())
    assert [sorted(each.tobytes() for each in found) for found in (first, second)] == [expected] * 2
    torch.manual_seed(1)
    again = [block.numpy() for block in names["Blocks"]("accompaniment")]
    assert all(map(np.array_equal, first, again)), "a seed repeats the order"


def check_clips(names: Namespace, known: Collection) -> None:
    # The window of "long" and "sung" is 12 s long; a clip is its first three seconds.
    assert [(song, start, labels) for song, start, labels in names["clips"].clips] == [
        ("long", 0.0, ["banjo"]),
        ("raga", 0.0, ["banjo"]),
        ("raga", 6.0, ["banjo", "tabla"]),
        ("raga", 30.0, ["tabla"]),
        ("sung", 0.0, ["banjo"]),
        ("temple", 0.0, ["banjo"]),
    ]
    assert names["clips"].classes == ["banjo", "tabla"]
    assert tuple(names["clip"].shape) == (2, 2, 132_300) and names["labels"].tolist() == [[1, 0], [1, 0]]
    clip, labels = names["clips"][2]
    assert np.array_equal(clip.numpy(), known.mixtures["raga"][:, 6 * 44_100 : 9 * 44_100])
    assert labels.tolist() == [1, 1]


def check_again(names: Namespace, known: Collection) -> None:
    assert names["count"] == names["snapshot"].height == 7
    again = names["again"]
    good = (Path(known.local.url) / "song_catalog" / "song_catalog.parquet").read_bytes()
    torn = Path(known.local.url).parent / "torn.parquet"
    for read in (
        lambda: pl.read_parquet(torn).height,
        lambda: pq.read_table(torn).num_rows,
        lambda: duckdb.sql(f"SELECT count(*) FROM '{torn}'").fetchall()[0][0],
    ):
        torn.write_bytes(good[:4000])

        def replaced_meanwhile(read: Callable[[], int] = read) -> int:
            try:
                return read()
            finally:
                torn.write_bytes(good)

        assert again(replaced_meanwhile) == 7


def check_delta(names: Namespace, known: Collection) -> None:
    states = [("failed", 1), ("ok", 5), ("rejected", 1)]
    assert names["shares"].rows() == names["shares_by_duckdb"] == states
    assert set(names["loud"].song_id) == set(TAKEN) and names["loud"].loudness_lufs.notna().all()
    assert names["songs_now"] == names["songs_by_pandas"] == 7
    assert names["changes"]["bandscope.songs_added"].tolist() == ["2", "5"]
    assert names["as_of_monday"]["song_id"].to_list() == sorted(TAKEN)
    assert sorted(names["new_since"]["song_id"]) == ["broken", "hiss"]
    assert names["as_of_now"].version() == 1
    footer = pq.read_metadata(Path(known.local.url) / "song_catalog" / "song_catalog.parquet").metadata
    assert names["changes"]["bandscope.refresh_id"][0].encode() == footer[b"bandscope.refresh_id"]


CHECKS: dict[str, Check] = {
    SETUP: check_setup,
    "What a score means": check_setup,
    "What a window is": check_setup,
    "Which songs have a banjo for ten seconds, no voice, and last under 100 s?": check_banjo,
    "When does each instrument play in a song?": check_timeline,
    "How long does each instrument sound in the whole collection?": check_collection,
    "Which instruments play together?": check_together,
    "What enters after what?": check_transitions,
    "How often is each instrument used in each genre?": check_genres,
    "Are songs with much voice louder?": check_voices,
    "Which songs are most like this one, by their instruments?": check_similar,
    "Which results need a look?": check_quality,
    "How loud are the songs, and how well did they separate?": check_loudness,
    "Which songs failed, and why?": check_errors,
    BYTES: check_levels,
    "A clip of any seconds, as numbers": check_excerpt,
    "The envelope of a stem": check_envelope,
    "How much of the mixture is missing from the stems?": check_residual,
    "How loud is a stem while its instrument plays?": check_joined,
    "Stems for a model: Hugging Face `datasets` and torch": check_datasets,
    "Blocks for training, at full speed": check_blocks,
    "Pairs of clip and labels, to train a model": check_clips,
    "While a catalog is being replaced": check_again,
    "Catalogs as Delta tables, with their history": check_delta,
}


def test_every_section_of_the_page_has_a_check() -> None:
    assert [heading for heading, _ in SECTIONS] == list(CHECKS)


def test_the_page_names_the_variables_that_the_snippets_were_run_with(s3_server: S3Server) -> None:
    exported = set(re.findall(r"\b([A-Z][A-Z_0-9]+)=", dict(SECTIONS)[SETUP].partition("```python")[0]))
    assert exported == set(analyst_on(s3_server.place()))


@pytest.mark.parametrize("heading", CHECKS)
def test_a_snippet_gives_the_right_answer(
    heading: str, answers: dict[str, Namespace], collection: Collection
) -> None:
    CHECKS[heading](answers[heading], collection)


READERS = dict(zip(("polars", "pyarrow", "DuckDB"), FENCE.findall(dict(SECTIONS)[BYTES]), strict=True))
TEN_SECONDS = "A clip of any seconds, as numbers"


@pytest.mark.parametrize(
    "code, most",
    [
        *((code, 0.05) for code in READERS.values()),
        (f"song = 'long'\n{snippets(dict(SECTIONS)[TEN_SECONDS])}", 0.25),
    ],
    ids=[*READERS, "two blocks of eleven"],
)
def test_columns_and_blocks_that_are_not_requested_are_not_fetched(
    code: str, most: float, collection: Collection, s3_server: S3Server, proxy: CountingProxy
) -> None:
    place = s3_server.place(proxy.endpoint)
    variables = analyst_on(place)
    size = 0
    for found in collection.local.list("stems"):
        if "long" in found.key or most == 0.05:
            size += found.size
        with place.open().create(found.key) as pending:
            pending.write(collection.local.read(found.key))
    proxy.reset()
    program = f"{snippets(dict(SECTIONS)[SETUP])}\n{code}"
    subprocess.run([sys.executable, "-c", program], env=os.environ | variables, check=True)
    print(f"{proxy.received:,} of {size:,} bytes: {proxy.received / size:.2%}")
    assert proxy.received / size < most
