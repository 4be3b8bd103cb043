"""The pages for people: links, paths and lists in them are those of the code, and the README stays short."""

import re
from pathlib import Path

import pytest

from assets import checks
from bandscope_dagster.cli.app import app
from bandscope_dagster.cli.models_app import models_app
from bandscope_dagster.errors import FAILED, UNAVAILABLE, Reason
from bandscope_dagster.models.inventory import load_inventory
from bandscope_dagster.orchestration.jobs import JOBS
from bandscope_dagster.pipeline.uploads import AUDIO_SUFFIXES
from bandscope_dagster.songs.status import Status
from bandscope_dagster.storage.tables.schemas import TABLES
from bandscope_dagster.tagging.vocabulary import load_vocabulary

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
MOST_WORDS = 900  # of the README, as `wc -w` counts them

LINK = re.compile(r"\]\(([^)\s#]*)#([^)\s]+)\)")
OWN_FOLDER = re.compile(
    r"`((?:assets|bandscope_dagster|benchmarks|deploy|docs|fuzzing|scripts|tests)/[\w/-]*)`"
)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_to_a_heading_leads_to_one(page: Path) -> None:
    broken: list[str] = []
    for path, anchor in LINK.findall(page.read_text()):
        if "://" not in path and anchor not in anchors(page.parent / path if path else page):
            broken.append(f"{path}#{anchor}")
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_folder_of_this_repository_exists(page: Path) -> None:
    folders = set(OWN_FOLDER.findall(page.read_text()))
    assert {folder for folder in folders if not (ROOT / folder).is_dir()} == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_setting_exists(page: Path) -> None:
    from bandscope_dagster.settings import unknown_variables

    with pytest.MonkeyPatch.context() as patch:
        for variable in set(re.findall(r"\bBANDSCOPE_[A-Z0-9_]*[A-Z0-9]\b", page.read_text())):
            patch.setenv(variable, "1")
        unknown = [name for name in unknown_variables() if f"{name}…" not in page.read_text()]
    if page.name != "CHANGELOG.md":  # it may name settings that are gone
        assert unknown == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} <= set(
        re.findall(r"\w[\w-]*\.md", index)
    )
    records = (DOCS / "adr" / "README.md").read_text()
    assert {page.name for page in (DOCS / "adr").glob("0*.md")} == set(
        re.findall(r"\((0[\w-]*\.md)\)", records)
    )


def test_the_formats_are_those_that_are_taken() -> None:
    section = (DOCS / "formats.md").read_text().partition("| container |")[0]
    assert set(re.findall(r"`(\.\w+)`", section)) == AUDIO_SUFFIXES


def code_cells(page: Path, after: str, column: int = 1) -> set[str]:
    """The words in code in one column of the first table below a heading."""
    section = page.read_text().partition(f"\n## {after}\n")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row[column])}


def test_the_states_and_reasons_are_those_of_the_code() -> None:
    page = DOCS / "states.md"
    assert code_cells(page, "The state of a song") == {status.value for status in Status}
    assert code_cells(page, "Reasons for a rejection") == {reason.value for reason in Reason}
    assert {f"`{UNAVAILABLE}`", f"`{FAILED}`"} <= set(re.findall(r"`\w+`", page.read_text()))


def test_the_checks_are_those_of_the_assets() -> None:
    specs = [*checks.SONG_CHECKS, *(spec for specs in checks.ANALYSIS_CHECKS.values() for spec in specs)]
    page = DOCS / "states.md"
    assert code_cells(page, "Checks") == {spec.name for spec in specs}
    assert code_cells(page, "Checks", column=2) == {spec.asset_key.to_user_string() for spec in specs}


def test_the_jobs_are_those_of_the_code_location() -> None:
    assert code_cells(DOCS / "operators.md", "Jobs") == {job.name for job in JOBS}


def test_the_models_are_those_of_the_inventory_with_their_licences() -> None:
    rows = re.findall(r"^\| (`.*?`) \| .* \| (\S+) \|$", (DOCS / "models.md").read_text(), re.MULTILINE)
    stated = {name: licence for names, licence in rows for name in re.findall(r"`([^`]+)`", names)}
    assert stated == {model.name: model.licence for model in load_inventory().values()}


def test_the_size_of_the_vocabulary_is_right() -> None:
    families = load_vocabulary().families
    instruments = sum(map(len, families.values()))
    assert f"{instruments} instruments in {len(families)} families" in (DOCS / "models.md").read_text()


def test_the_readme_lists_every_table() -> None:
    section = (ROOT / "README.md").read_text().partition("| table | one row per |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", "".join(rows))) == sorted(TABLES)


def test_every_command_is_in_a_page() -> None:
    commands = {
        command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands
    }
    commands |= {f"models {command.name}" for command in models_app.registered_commands}
    text = "".join(page.read_text() for page in PAGES)
    assert {command for command in commands if f"bandscope {command}" not in text} == set()
