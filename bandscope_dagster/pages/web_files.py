"""The templates, styles and scripts of the pages, and the policy for the browser that runs them."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from bandscope_dagster.pages import text

if TYPE_CHECKING:  # Jinja loads a compiler; a code location needs none
    from jinja2 import Environment

FOLDER: Final = "web"
POLICY: Final = (
    "default-src 'none'; img-src data:; script-src {scripts}; style-src {styles}; base-uri 'none'; "
    "form-action 'none'"
)
"""Blocks all requests, forms and frames. Only the page's own scripts and styles run, identified by their digests."""

SONG_PAGE: Final = (
    "song.html",
    ("theme.css", "song.css"),
    ("clock.js", "webm.js", "wav.js", "player.js", "waveforms.js", "timeline.js", "song.js"),
)
INDEX_PAGE: Final = ("index.html", ("theme.css", "index.css"), ("clock.js", "index.js"))

Page = tuple[str, Sequence[str], Sequence[str]]  # template, styles, scripts: names of files


def render(page: Page, values: Mapping[str, Any]) -> str:
    """The page with ``values``, escaped for HTML. A name in the template without a value is an error."""
    from markupsafe import Markup

    template, styles, scripts = page
    parts = {"styles": [_read(name) for name in styles], "scripts": [_read(name) for name in scripts]}
    policy = POLICY.format(scripts=_sources(parts["scripts"]), styles=_sources(parts["styles"]))
    ours = {name: [Markup(part) for part in own] for name, own in parts.items()}  # not escaped
    return _environment().get_template(template).render(values, policy=policy, **ours)


@cache
def version(page: Page) -> str:
    """The digest of all web files of the page."""
    template, styles, scripts = page
    return hashlib.sha256(
        "\0".join(_read(name) for name in (template, *styles, *scripts)).encode()
    ).hexdigest()


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = text.percent
    return environment


@cache
def _read(name: str) -> str:
    return (files(__package__ or "") / FOLDER / name).read_text(encoding="utf-8")


def _sources(texts: Sequence[str]) -> str:
    digests = (b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
