"""``bandscope describe``: a card and Croissant that are true, valid and safe, and never replace a person's file."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from catalog_songs import CATALOGS, reject
from command_line import CommandLine, Ended
from page_songs import noise, store_song
from song_rows import NOW, block_rows, lineage, tag_row

from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.describing import holdings
from bandscope_dagster.describing.croissant import CONTEXT, croissant
from bandscope_dagster.describing.data_card import CALIBRATION, data_card
from bandscope_dagster.describing.holdings import Holdings, read_holdings
from bandscope_dagster.describing.own_file import NotOurs, is_identified, is_marked, marked, replace_own
from bandscope_dagster.describing.stated import Stated, plain
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.separation import presets
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS, STEMS, TABLES
from bandscope_dagster.storage.tables.song_tables import write_table
from bandscope_dagster.tagging.registry import present_from

HOSTILE = "<script>alert(1)</script> ![x](http://example.com/x.png) | `x`\n# Title\n---\nlicense: mit"
ROOT = Path(__file__).parents[2]
FILLED = [name for name in TABLES if name != "song_failures"]
ALL_STATED = (
    *("--licence", "CC-BY-4.0", "--creator", "Mia", "--cite", "Mia (2026)"),
    *("--url", "https://example.org/songs"),
)


def fill(store: ObjectStore) -> None:
    """Two songs with results, one with hostile tags, and three rejected songs."""
    embedded = find_model("bandscope-instruments")
    for song, title in (("calm", "Night Bus"), ("hostile", HOSTILE)):
        tags = [tag_row(song, "guitar", 0.6, 0.0, model=embedded.name)]
        stem_tags = [tag_row(song, "singing", 0.6, 0.0, source="vocals", family="voice", model=embedded.name)]
        stems = {"vocals": noise(12.0), "accompaniment": noise(12.0, seed=1)}
        store_song(store, song, stems, tags, title=title, artist=title, genre=title, filename=f"{title}.mp3")
        made = lineage(song, model=embedded.name, model_sha256=embedded.sha256)
        write_table(store, INSTRUMENT_TAGS, tags, made)
        write_table(store, STEM_INSTRUMENT_TAGS, stem_tags, made)
    for song, error in (
        ("cut", "truncated: 1 of 2 s"),
        ("cut-2", "truncated: 2 of 3 s"),
        ("text", "not_audio: text"),
    ):
        reject(store, song, error)
    assert len(list(refresh(store, CATALOGS))) == len(CATALOGS)


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("describe") / "songs"
    fill(open_store(str(folder)))
    return folder


class Described:
    """A store of its own, and the command over it."""

    def __init__(self, folder: Path, bandscope: CommandLine) -> None:
        self.folder, self.bandscope = folder, bandscope

    def __call__(self, *options: object) -> Ended:
        return self.bandscope("describe", *options)

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def croissant(self) -> dict[str, Any]:
        return json.loads(self.text("croissant.json"))


@pytest.fixture
def describe(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Described:
    folder = tmp_path / "songs"
    folder.mkdir()
    for path in processed.rglob("*"):  # links: the files of tables are only read here
        copy = folder / path.relative_to(processed)
        copy.mkdir(parents=True) if path.is_dir() else copy.hardlink_to(path)
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(folder))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Described(folder, CommandLine(monkeypatch, capsys))


def head_and_body(card: str) -> tuple[dict[str, Any], str]:
    _, head, body = card.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_card_has_the_counts_the_models_and_how_they_are_to_be_read(describe: Described) -> None:
    ended = describe()
    assert ended.code == 0 and ended.out.splitlines()[0] == f"{describe.folder}/README.md"
    assert "Not stated, because Bandscope cannot know it: --licence, --creator, --url." in ended.out
    head, body = head_and_body(describe.text("README.md"))
    assert (
        head["pretty_name"] == "songs"
        and head["license"] == "unknown"
        and head["size_categories"] == ["n<1K"]
    )
    assert [each["config_name"] for each in head["configs"]] == FILLED
    assert [each["config_name"] for each in head["configs"] if each.get("default")] == ["song_catalog"]
    assert "5 songs, 0.01 hours with all results" in body
    assert "| ok | 2 |" in body and "| rejected | 3 |" in body, "counts are counts of songs"
    assert "| truncated | 2 |" in body and "| not&#95;audio | 1 |" in body
    assert "**not stated**" in body and "no ground truth" in body
    embedded = find_model("bandscope-instruments")
    assert f"| bandscope-instruments | tagger | 2 | MIT | `{embedded.sha256}` |" in body
    assert "| m | separator | 2 | unknown to this version of Bandscope |" in body
    assert plain(embedded.citation) in body
    assert CALIBRATION in body and "an instrument is present in the windows" in body
    assert re.search(r"Versions in the files of 2 songs: .*pyarrow \d", body)


def test_the_head_of_the_card_is_what_hubs_read(describe: Described) -> None:
    assert describe("--name", "Night 🎵", "--licence", "https://example.org/terms").code == 0
    head, _ = head_and_body(describe.text("README.md"))
    assert head["pretty_name"] == "Night 🎵" and head["license"] == "other"
    assert head["license_name"] == head["license_link"] == "https://example.org/terms"


def test_the_card_names_the_models_of_a_preset_and_those_on_a_server(store: ObjectStore) -> None:
    stems = [row | {"model": "karaoke"} for row in block_rows("song", 0, ("vocals", "accompaniment"))]
    members = {"htdemucs_ft": {}, "of-another-version": {}}
    write_table(
        store,
        STEMS,
        stems,
        lineage("song", model="karaoke", params=json.dumps({presets.MODELS: members})),
    )
    params = json.dumps({"served_model": "Qwen/Omni", "revision": "abc"})
    tags = [tag_row("song", "guitar", None, 0.0, model="qwen2.5-omni")]
    made = lineage("song", model="qwen2.5-omni", model_sha256="", params=params)
    write_table(store, INSTRUMENT_TAGS, tags, made)
    songs = pl.DataFrame({"song_id": ["song"], "separator": ["karaoke"], "tagger": ["qwen2.5-omni"]})
    seen = holdings._sample(store, songs)
    models = [
        *holdings._models(songs["separator"], "separator", seen),
        *holdings._models(songs["tagger"], "tagger", seen),
    ]
    found = Holdings(NOW, 1, {"ok": 1}, 0.0, {}, models, {}, 1, [])
    card = data_card(found, Stated("songs"), present_from(None, -25.0), NOW)
    network = find_model("htdemucs_ft")
    assert (
        f"htdemucs&#95;ft: {network.licence}; of-another-version: unknown to this version of Bandscope"
        in card
    )
    assert f"- htdemucs&#95;ft: {plain(network.citation)}" in card
    assert f"on a server, not hashed: {plain('Qwen/Omni, revision abc')}" in card
    assert "it has no scores; an instrument is present in all windows in which it is named" in card


def test_the_songs_whose_footers_are_read_are_spread_over_the_store(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "SAMPLED_SONGS", 4)
    asked: list[str] = []
    monkeypatch.setattr(holdings, "_origins", lambda store, song: asked.append(song) or [])
    names = [f"{number}" for number in range(7)]
    songs = pl.DataFrame({"song_id": names, "separator": ["m"] * 7, "tagger": ["t"] * 7})
    assert holdings._sample(store, songs).songs == 4 and sorted(asked) == ["0", "2", "4", "6"]


def test_the_figures_of_the_card_are_those_of_the_page_about_the_tagger() -> None:
    page = (ROOT / "docs" / "tagging.md").read_text()
    for row in (
        "| expected calibration error | 0.009 | \N{EN DASH} | 0.020 |",
        "| micro-F1 | .72 (.68 to .76) | .08 | .56",
    ):
        assert row in page
    assert "25 of the 38 classes were never judged on real notes" in page
    for figure in ("0.009 and 0.020", ".72 and .56", "25 of its 38"):
        assert figure in CALIBRATION


def test_no_text_of_a_song_is_in_a_description_and_that_of_the_owner_is_only_text(
    describe: Described,
) -> None:
    stated = (
        "--name",
        HOSTILE,
        "--licence",
        HOSTILE,
        "--creator",
        HOSTILE,
        "--cite",
        HOSTILE,
        "--url",
        HOSTILE,
    )
    assert describe(*stated).code == describe("--croissant", *stated).code == 0
    card = describe.text("README.md")
    assert "<script>" not in card.replace(json.dumps(HOSTILE), "") and "Night Bus" not in card
    head, body = head_and_body(card)
    assert head["pretty_name"] == head["license_name"] == HOSTILE and head["license"] == "other"
    assert "](" not in body and "# Title" not in body and "<" not in body.split("<!-- written by")[0]
    assert describe.croissant["name"] == HOSTILE and "Night Bus" not in describe.text("croissant.json")


@pytest.mark.parametrize("name", ["README.md", "croissant.json"])
@pytest.mark.parametrize("edit", ["written", "edited", "not text"])
def test_a_file_that_a_person_wrote_or_edited_stays(describe: Described, name: str, edit: str) -> None:
    options = ("--croissant",) if name == "croissant.json" else ()
    path = describe.folder / name
    if edit == "edited":
        assert describe(*options).code == 0
        path.write_text(path.read_text().replace("truncated" if not options else "rejected", "broken", 1))
    else:
        path.write_bytes(b"\xff\xfe" if edit == "not text" else b'{"about": "My songs"}')
    before = path.read_bytes()
    ended = describe(*options)
    assert ended.code == 1 and path.read_bytes() == before
    assert f"{path} was written or edited by a person" in ended.err and "--to FILE" in ended.err
    assert describe(*options, "--to", describe.folder.parent / "mine").code == 0


def test_our_own_file_is_replaced_and_follows_the_catalogs(describe: Described) -> None:
    store = open_store(str(describe.folder))
    for options, name, ours in (
        ((), "README.md", is_marked),
        (("--croissant",), "croissant.json", is_identified),
    ):
        assert describe(*options).code == 0
        assert ours(describe.text(name))
    assert "| rejected | 3 |" in describe.text("README.md")
    for key in [found.key for found in store.list() if "/cut-2." in found.key]:
        store.delete(key)
    assert len(list(refresh(store, CATALOGS))) == len(CATALOGS)
    assert describe().code == describe("--croissant").code == 0
    assert (
        "| rejected | 2 |" in describe.text("README.md") and "2 rejected" in describe.croissant["description"]
    )


def test_a_file_of_to_is_replaced_only_if_asked(describe: Described, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    assert describe("--to", card, "--licence", "CC0-1.0").code == 0
    assert head_and_body(card.read_text())[0]["license"] == "cc0-1.0"
    assert not (describe.folder / "README.md").exists()
    ended = describe("--to", card)
    assert ended.code == 1 and f"{card} already exists" in ended.err
    assert describe("--to", card, "--force").code == 0
    assert head_and_body(card.read_text())[0]["license"] == "unknown"
    ended = describe("--to", tmp_path / "none" / "card.md")
    assert ended.code == 1 and "does not exist; create it first" in ended.err
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"card.md"}


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_store_without_catalog_is_not_described(describe: Described, damage: str) -> None:
    path = describe.folder / "song_catalog" / "song_catalog.parquet"
    path.unlink()
    if damage == "damaged":
        path.write_bytes(b"PAR1")
    ended = describe()
    assert ended.code == 1 and "song_catalog.parquet is missing or damaged" in ended.err
    assert "`bandscope run` makes it" in ended.err and not (describe.folder / "README.md").exists()


def test_a_store_with_a_card_loads_by_the_names_of_its_tables(describe: Described) -> None:
    from datasets import Audio, get_dataset_config_names, load_dataset

    assert describe().code == 0
    store = str(describe.folder)
    assert get_dataset_config_names(store) == FILLED
    catalog = load_dataset(store, "song_catalog", split="train", streaming=True)
    assert sorted(row["status"] for row in catalog) == ["ok"] * 2 + ["rejected"] * 3
    stems = load_dataset(store, "stems", split="train", streaming=True)
    assert stems.features["audio"] == Audio(decode=False)


def test_the_python_of_the_page_about_data_sets_runs(describe: Described) -> None:
    assert describe().code == describe("--croissant").code == 0
    page = (ROOT / "docs" / "datasets.md").read_text().replace("path/to/store", str(describe.folder))
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        exec(code, names)
    assert len(names["catalog"]) == 5 and next(iter(names["stems"]))["song_id"]
    assert names["record"]["song_catalog/song_id"] == b"text", "the last one"


def test_a_store_of_each_kind_is_described_at_its_root(store: ObjectStore) -> None:
    fill(store)
    held = read_holdings(store)
    assert held.statuses == {"rejected": 3, "ok": 2} and [table.name for table in held.tables] == FILLED
    document = croissant(store, held, Stated("songs"), NOW)
    for file in document["distribution"]:
        if "sha256" in file:
            assert hashlib.sha256(store.read(file["contentUrl"])).hexdigest() == file["sha256"]
    for text in (json.dumps(document), marked("# Songs"), marked("# Other songs")):
        assert replace_own(store, "README.md", text) == store.uri("README.md")
        assert store.read("README.md").decode() == text
    with store.create("README.md") as pending:
        pending.write(b"# Mine\n")
    with pytest.raises(NotOurs, match="stays as it is"):
        replace_own(store, "README.md", marked("# Songs"))


def validated(path: Path) -> tuple[Any, set[str], set[str]]:
    """The data set, and the errors and warnings of its validation."""
    import mlcroissant

    dataset = mlcroissant.Dataset(jsonld=path)
    issues = dataset.metadata.ctx.issues
    return dataset, set(issues.errors), set(issues.warnings)


def test_croissant_is_valid_and_has_every_column_with_its_description_and_unit(describe: Described) -> None:
    assert describe("--croissant", *ALL_STATED).code == 0
    dataset, errors, warnings = validated(describe.folder / "croissant.json")
    assert not errors and not warnings
    assert dataset.metadata.conforms_to == ["http://mlcommons.org/croissant/1.1"]
    found = {record_set.name: record_set for record_set in dataset.metadata.record_sets}
    assert list(found) == FILLED
    for name, record_set in found.items():
        assert [field.name for field in record_set.fields] == list(TABLES[name].names)
        for column, field in zip(TABLES[name].columns, record_set.fields, strict=True):
            assert field.description.startswith(column.description)
            assert not column.unit or field.description.endswith(f"Unit: {column.unit}")
    for file in dataset.metadata.file_objects:
        assert file.sha256 == hashlib.sha256((describe.folder / file.content_url).read_bytes()).hexdigest()


def test_croissant_without_statements_is_valid_and_validators_warn_of_what_is_missing(
    describe: Described,
) -> None:
    ended = describe("--croissant")
    assert ended.code == 0 and "--licence, --creator, --url" in ended.out
    _, errors, warnings = validated(describe.folder / "croissant.json")
    assert not errors
    assert sorted(re.findall(r'Property "[^"]*/(\w+)" is recommended', " ".join(warnings))) == [
        "citeAs",
        "license",
    ]
    assert len(warnings) == 2
    assert "The licence of the songs is not stated" in describe.croissant["description"]


def test_the_records_of_every_table_are_read_by_croissant(describe: Described) -> None:
    assert describe("--croissant", *ALL_STATED).code == 0
    dataset, _, _ = validated(describe.folder / "croissant.json")
    records = {name: list(dataset.records(name)) for name in FILLED}
    for name, rows in records.items():
        expected = pl.read_parquet(describe.folder / name / "*.parquet").height
        assert len(rows) == expected and expected, name
    (calm,) = [row for row in records["song_catalog"] if row["song_catalog/song_id"] == b"calm"]
    heard = {
        each["song_catalog/instruments/instrument"]: list(each["song_catalog/instruments/sources"])
        for each in calm["song_catalog/instruments"]
    }
    assert heard == {b"guitar": [b"mixture"], b"singing": [b"vocals"]}
    audio = [row["stems/audio"] for row in records["stems"] if row["stems/error"] is None]
    assert len(audio) == 2 * 2 * 2 and all(data[:4] == b"fLaC" for data in audio), "songs, stems, blocks"
    tables = {row["song_errors/song_id"]: row["song_errors/tables"] for row in records["song_errors"]}
    assert [len(each) for each in tables.values()] == [5, 5, 5]


def test_the_context_is_that_of_the_format() -> None:
    from mlcroissant._src.core.rdf import make_context

    ours = {name: CONTEXT[name] for name in make_context() if name in CONTEXT}
    assert ours == make_context(), "its names, with the same meanings"
