"""Keys of objects: the names that every store accepts, and the names that listings leave out."""

import re

LONGEST_KEY_BYTES = 1024  # of UTF-8; the limit of Amazon S3, "Naming Amazon S3 objects"
TEMPORARY_SUFFIXES = (".part", ".partial", ".tmp", ".crdownload")  # of browsers and copy tools

TRASH = "trash"  # the folder to which files move that were removed, until a person deletes it

HIDDEN = "hidden, because its name or that of a folder starts with a dot; rename it"

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")  # of a name that is not UTF-8, as os.fsdecode returns it


def check_key(key: str) -> str:
    """Return ``key`` if it can name an object in every store; raise ValueError if it cannot.

    A key is a path of segments with ``/`` between them. No segment is empty or starts with a dot, so neither ``..``
    nor hidden files are keys. Control characters are refused.
    """
    fault = fault_of_key(key)
    if fault is not None:
        raise ValueError(f"{key!r} cannot be the key of an object: {fault}")
    return key


def fault_of_key(key: str) -> str | None:
    """The reason why ``key`` cannot name an object in every store; None if it can."""
    if not key or key.startswith("/") or key.endswith("/") or "//" in key:
        return "it has an empty segment"
    if is_hidden(key):
        return "a segment starts with a dot"
    if CONTROL_CHARACTER.search(key):
        return "it has a control character"
    if LONE_SURROGATE.search(key):
        return "it is not UTF-8"
    if len(key.encode()) > LONGEST_KEY_BYTES:
        return f"it is longer than {LONGEST_KEY_BYTES} bytes"
    return None


def is_hidden(key: str) -> bool:
    """True if the name or a folder of ``key`` starts with a dot."""
    return key.startswith(".") or "/." in key


def hidden_part(key: str) -> str:
    """A hidden ``key`` up to the first folder, or else the name, that starts with a dot."""
    before, _, after = f"/{key}".partition("/.")
    return f"{before}/.{after.partition('/')[0]}"[1:]


def is_listed(key: str, *, any_name: bool) -> bool:
    """True if a listing shows ``key``.

    Hidden and temporary names are never shown. Names that are no keys are shown only with ``any_name``.
    """
    if is_hidden(key) or key.endswith(TEMPORARY_SUFFIXES):
        return False
    return any_name or fault_of_key(key) is None
