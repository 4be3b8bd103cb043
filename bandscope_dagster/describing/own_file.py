"""Files in the store that Bandscope writes and people may edit: an edited file is never replaced."""

import hashlib
import json
import re
from typing import Any, Final

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.storage.objects.protocol import ObjectStore

MARK: Final = re.compile(
    r"<!-- written by `bandscope describe`, sha256 of the text above: ([0-9a-f]{64}) -->\n\Z"
)
IDENTIFIER: Final = "identifier"  # https://schema.org/identifier, of a Croissant description
PREFIX: Final = "urn:bandscope:description:sha256:"


class NotOurs(BandscopeError):
    """A person wrote or edited the file that is in the place of ours; the message says what to do."""


def marked(text: str) -> str:
    """A page with a last line by which we know later that no one has edited it."""
    return f"{text}\n<!-- written by `bandscope describe`, sha256 of the text above: {_sha256(text)} -->\n"


def is_marked(text: str) -> bool:
    """True if ``text`` is what ``marked`` returned."""
    found = MARK.search(text)
    return found is not None and _sha256(text[: found.start() - 1]) == found[1]


def identified(document: dict[str, Any]) -> dict[str, Any]:
    """The same for a JSON document: with an identifier made from all its other values."""
    rest = {name: value for name, value in document.items() if name != IDENTIFIER}
    return rest | {IDENTIFIER: PREFIX + _sha256(json.dumps(rest, sort_keys=True))}


def is_identified(text: str) -> bool:
    """True if ``text`` is the JSON of what ``identified`` returned."""
    try:
        document = json.loads(text)
    except ValueError:
        return False
    return isinstance(document, dict) and document == identified(document)


def replace_own(store: ObjectStore, key: str, text: str) -> str:
    """Write ``text`` to ``key`` in the store, if there is no file or ours; returns its address.

    Raises:
        NotOurs: a person wrote the file that is there, or edited ours.
    """
    try:
        before = store.read(key).decode(errors="replace")
    except FileNotFoundError:
        before = None
    if before is not None and not (is_marked(before) or is_identified(before)):
        raise NotOurs(
            f"{store.uri(key)} was written or edited by a person, and stays as it is. Use --to FILE to write "
            "elsewhere, or move it away first"
        )
    with store.create(key) as pending:
        pending.write(text.encode())
    return store.uri(key)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
