"""References to our own files and modules in pages, comments, docstrings and configurations: each one exists."""

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest
from syntax_trees import ALL, PACKAGE, ROOT, own_files

# A file's name or path. It ends before a parenthesis, so that `pages.html()` is no file.
FILE = re.compile(
    r"(?<![\w/.:@-])(?:\./|\$\{?\w+\}?/)?((?:[\w.-]+/)*[\w-][\w.-]*\.(?:py|md|sh|yaml|toml|html|css|js|Dockerfile))\b(?![\w/(])"
)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
MODULE = re.compile(rf"(?<![\w./-]){PACKAGE}(?:\.\w+)+(?!\.?/)")
HEADING = re.compile(r"(\w+(?:/\w+)+):")  # of a test's docstring: "models/hub: …"

NOT_OURS = {
    "apply.py": "demucs",
    "demucs/api.py": "demucs",
    "demucs/apply.py": "demucs",
    "demucs/hf.py": "demucs",
    "demucs/remote/htdemucs_ft.yaml": "demucs",
    "configuration.py": "musicnn",
    "table_format.md": "LevelDB",
    "residual.py": "a former module, in the history of benchmarks/RESULTS.md",
    "fusion.py": "a former module, in the history of benchmarks/RESULTS.md",
    "pages/index.html": "`bandscope report` writes it",
    "secrets.yaml": "an operator writes it, from secrets.example.yaml",
}

FILES = own_files()
PAGES = [path for path in FILES if path.suffix == ".md"]
TEXTS = [path for path in FILES if path.suffix in {".md", ".sh", ".yaml", ".toml", ".js", ".py"}]

# The end of every file's path: "audio/decode.py" for "bandscope_dagster/audio/decode.py".
ENDS = {
    "/".join(parts[start:])
    for parts in (path.relative_to(ROOT).parts for path in FILES)
    for start in range(len(parts))
}
TOP_FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()}


def exists(reference: str, page: Path) -> bool:
    """True if a file of ours has this path from the root or from the page's folder, or a path that ends with it."""
    if (page.parent / reference).exists() or (ROOT / reference).exists():
        return True
    return reference in ENDS and reference.partition("/")[0] not in TOP_FOLDERS


@cache
def prose(path: Path) -> list[tuple[int, str]]:
    """Line number and text: all lines of a page, and the comments and docstrings of Python that name a file."""
    text = path.read_text()
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), 1))
    if not FILE.search(text):
        return []
    docstrings = {
        node.body[0].lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node)
    }
    return [
        (token.start[0], token.string)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT or token.start[0] in docstrings
    ]


def is_module(name: str) -> bool:
    """True for a module of ours, and for a name in one."""
    return name in ALL or (name.rpartition(".")[0] in ALL and name.rpartition(".")[0] != PACKAGE)


def of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_file_that_a_text_names_exists() -> None:
    missing = [
        f"{of(path)}:{line}: {found[1]}"
        for path in TEXTS
        for line, text in prose(path)
        for found in FILE.finditer(text)
        if found[1] not in NOT_OURS and not exists(found[1], path)
    ]
    assert not missing, "\n".join(missing)


def test_every_relative_link_of_a_page_leads_to_a_file() -> None:
    missing = [
        f"{of(page)}: {link}"
        for page in PAGES
        if not page.name.endswith("_template.md")
        for link in LINK.findall(page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not missing, "\n".join(missing)


def test_every_module_of_ours_that_a_text_names_exists() -> None:
    missing = [
        f"{of(path)}:{line}: {found[0]}"
        for path in TEXTS
        for line, text in enumerate(path.read_text().splitlines(), 1)
        for found in MODULE.finditer(text)
        if not is_module(found[0])
    ]
    assert not missing, "\n".join(missing)


def test_a_test_whose_docstring_opens_with_a_room_and_a_module_means_one_that_exists() -> None:
    opened = {
        f"{of(path)}: {found[1]}": ROOT / found[1]
        for path in FILES
        if path.name.startswith("test_")
        and (found := HEADING.match(ast.get_docstring(ast.parse(path.read_text())) or ""))
    }
    rooms = {name: ROOT / PACKAGE / path.relative_to(ROOT) for name, path in opened.items()}
    missing = {
        name
        for name, path in opened.items()
        if not any(each.exists() or each.with_suffix(".py").exists() for each in (path, rooms[name]))
    }
    assert not missing, "\n".join(missing)


def test_files_of_others_are_still_named() -> None:
    text = "".join(text for path in TEXTS if path != Path(__file__) for _, text in prose(path))
    assert {name for name in NOT_OURS if name not in text} == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see docs/no_such_page.md.", ["docs/no_such_page.md"]),
        ("`no_such_module.py` and pyproject.toml", ["no_such_module.py"]),
        ("pages.html() and https://example.org/a.html", []),
        ("cage/child.py:12", []),
    ],
)
def test_a_missing_file_is_found(text: str, found: list[str]) -> None:
    assert [each[1] for each in FILE.finditer(text) if not exists(each[1], ROOT / "README.md")] == found
