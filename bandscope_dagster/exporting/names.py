"""Names of folders and files from titles: titles are untrusted, and names must be safe on every system."""

import unicodedata
from collections.abc import Iterator
from typing import Final

LONGEST_PART_BYTES: Final = 66
"""The limit of an artist or a title, in UTF-8: "Artist - Title (12)" stays below the 143 bytes of the strictest common
file system (eCryptfs; others allow 255), and a path below the 260 characters of Windows."""

# Not allowed on Windows ("Naming Files, Paths, and Namespaces", learn.microsoft.com); "/" and ":" nor on macOS.
_FORBIDDEN: Final = str.maketrans(dict.fromkeys('<>:"/\\|?*', "_"))
_DEVICES: Final = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    | {f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"}
)
# Persian and Indic scripts and emoji need these; other format characters can disguise a name.
_JOINERS: Final = "\u200c\u200d"


def safe_name(text: str | None, fallback: str) -> str:
    """``text`` as one segment of a path on Windows, macOS and Linux; ``fallback`` if nothing is left of it.

    The name is never a device, a hidden file, an option or a path, and has no control or direction marks. It has at
    most ``LONGEST_PART_BYTES``.
    """
    name = plain_text(text or "").translate(_FORBIDDEN).lstrip(" .-")
    name = name.encode()[:LONGEST_PART_BYTES].decode(errors="ignore").rstrip(f" .{_JOINERS}")
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        name = f"_{name}"
    return name or fallback


def song_name(artist: str | None, title: str | None, fallback: str) -> str:
    """``Artist - Title``; without an artist, the title."""
    named = safe_name(title, fallback)
    by = safe_name(artist, "")
    return f"{by} - {named}" if by else named


def numbered(name: str) -> Iterator[str]:
    """``name``, ``name (2)``, ``name (3)`` and so on, without end."""
    yield name
    number = 1
    while True:
        number += 1
        yield f"{name} ({number})"


def comparable(name: str) -> str:
    """A form for comparing names as Windows and macOS do, which ignore case and Unicode composition."""
    return unicodedata.normalize("NFKC", name).casefold()


def plain_text(text: str) -> str:
    """The text as one line in NFC, without control characters, direction marks and other invisible characters."""
    line = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(
        char for char in line if unicodedata.category(char) not in ("Cc", "Cf", "Cs") or char in _JOINERS
    )
