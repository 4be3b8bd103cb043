"""Plain English: words and openings that were hard to read stay out of comments, docstrings, messages and pages."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("bandscope_dagster", "assets", "benchmarks", "deploy", "fuzzing", "scripts", "tests")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "deploy", "benchmarks", "fuzzing")
OTHER_TEXT = (".html", ".js", ".sh", ".yaml", ".toml", ".md", ".Dockerfile")

WORDS = re.compile(
    r"\b(mend(s|ed|ing)?|lies|lie|lay|stands?|told|that which|nobody|somebody|anyhow)\b", re.IGNORECASE
)
"""Personification and old words. Say: fix, is in, is, says or shows, what, no one, someone, anyway."""

OPENINGS = re.compile(r"(What|Whether|Where|Who|Whose|Why|How|Told|To be)\b")
"""A docstring opens with a noun phrase ("The song's peak") or an imperative ("Return …", "Write …")."""


FROZEN = {"bandscope_dagster/tagging/vocabulary.toml"}
"""The digest of stored tags has the SHA-256 of these bytes: another word in a comment would make all tags outdated."""


def files(roots: tuple[str, ...], suffixes: tuple[str, ...]) -> list[str]:
    found: list[Path] = []
    for root in roots:
        path = ROOT / root
        found += (
            [path] if path.is_file() else [each for each in path.rglob("*") if each.name.endswith(suffixes)]
        )
    hidden = {"__pycache__", "node_modules", "local_stack"}
    return sorted({str(each.relative_to(ROOT)) for each in found if not hidden & set(each.parts)})


def prose(source: str) -> Iterator[tuple[int, str, bool]]:
    """Line, text, and True for a docstring, of every comment and string of a Python file."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(first.value.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) or token.type == getattr(
            tokenize, "FSTRING_MIDDLE", -1
        ):
            yield token.start[0], token.string, token.start[0] in docstrings and token.type == tokenize.STRING


@pytest.mark.parametrize("name", files(CODE, (".py",)))
def test_comments_docstrings_and_messages_are_plain(name: str) -> None:
    if name == str(Path(__file__).relative_to(ROOT)):
        return
    source = (ROOT / name).read_text()
    if not WORDS.search(source) and not re.search(rf"[\"'rbf]{OPENINGS.pattern}", source):
        return  # no comment or string can match; most files end here, before the slow tokenizer
    found: list[str] = []
    for line, text, is_docstring in prose(source):
        found += [f"{name}:{line}: {word[0]!r}" for word in WORDS.finditer(text)]
        if is_docstring and (opening := OPENINGS.match(text.lstrip("\"'rbf"))):
            found.append(f"{name}:{line}: opens with {opening[0]!r}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", sorted({*files(PAGES + CODE, OTHER_TEXT)} - FROZEN))
def test_pages_are_plain(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    found = [f"{name}:{n}: {word[0]!r}" for n, line in enumerate(lines, 1) for word in WORDS.finditer(line)]
    assert not found, "\n".join(found)
