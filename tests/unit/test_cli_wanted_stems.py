"""Stems in the store, also those of another separator, before ``bandscope separate`` computes any."""

import json
from pathlib import Path

import pytest
from song_rows import lineage

from bandscope_dagster.cli.separate import lines_about_stored
from bandscope_dagster.cli.wanted_stems import Stored, stored_of, wanted_stems
from bandscope_dagster.settings import load_settings
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.tables.schemas import STEMS
from bandscope_dagster.storage.tables.song_tables import write_error_row

SPLEETER = Stored("spleeter-2stems", ("vocals", "accompaniment"), chosen=False)
DEMUCS = Stored("htdemucs", ("drums", "bass", "other", "vocals"), chosen=False)
VOCALS = Stored("htdemucs", ("vocals",), chosen=True)
GONE = Stored("a-preset-of-2025", (), chosen=False)


@pytest.mark.parametrize(
    ("separator", "names", "stored", "computed", "says"),
    [
        (None, [], SPLEETER, None, []),
        (None, ["vocals"], SPLEETER, None, []),
        ("htdemucs", ["drums"], VOCALS, ("drums", "vocals"), ["because stored stems lack drums: 1 song."]),
        (
            "htdemucs",
            ["drums"],
            SPLEETER,
            ("drums", "vocals"),
            ["again with htdemucs, which replaces all stems of spleeter-2stems: 1 song."],
        ),
        (
            "mel-band-roformer",
            ["vocals"],
            SPLEETER,
            ("vocals", "accompaniment"),
            ["again with mel-band-roformer, which replaces all stems of spleeter-2stems: 1 song."],
        ),
        ("htdemucs", [], SPLEETER, DEMUCS.stems, ["which replaces all stems of spleeter-2stems: 1 song."]),
        ("htdemucs", [], GONE, None, ["which replaces all stems of a-preset-of-2025: 1 song."]),
        ("htdemucs", [], DEMUCS, None, []),
        (
            None,
            ["vocals"],
            DEMUCS,
            None,
            ["Stems of htdemucs are kept: 1 song. To replace them by those of spl"],
        ),
        (None, [], VOCALS, None, ["Stems of htdemucs are kept: 1 song."]),
        (
            None,
            ["accompaniment"],
            DEMUCS,
            ("vocals", "accompaniment"),
            ["again with spleeter-2stems, which replaces all stems of htdemucs: 1 song."],
        ),
    ],
)
def test_stems_of_another_separator_are_replaced_or_kept_and_never_without_a_word(
    separator: str | None,
    names: list[str],
    stored: Stored,
    computed: tuple[str, ...] | None,
    says: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BANDSCOPE_SEPARATOR", raising=False)
    if separator is not None:
        monkeypatch.setenv("BANDSCOPE_SEPARATOR", separator)
    wanted = wanted_stems(load_settings(), names)
    lines = lines_about_stored(wanted, {"song": stored})
    assert len(lines) == len(says) and all(text in line for text, line in zip(says, lines, strict=True)), (
        lines
    )
    if wanted.again(stored):
        assert wanted.to_compute([stored]) == computed
    else:
        assert computed is None


def test_the_store_says_of_which_separator_the_stems_are(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for song, model, params in (("all", "htdemucs", {}), ("some", "htdemucs", {"stems": ["vocals"]})):
        write_error_row(store, STEMS, song, "", lineage(song, model=model, params=json.dumps(params)))
    write_error_row(store, STEMS, "rejected", "empty: nothing", lineage("rejected", model="", params=""))
    assert stored_of(store, {"all", "some", "rejected", "new"}) == {"all": DEMUCS, "some": VOCALS}
