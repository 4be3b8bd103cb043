"""Names of folders and files from titles: what an upload says is data, and must be safe on every system."""

import unicodedata
from collections.abc import Iterator
from typing import Final

LONGEST_PART_BYTES: Final = 66
"""Of an artist or a title in UTF-8, so that "Artist - Title (12)" stays below the 143 bytes of the strictest common
file system (eCryptfs; others have 255), and a path below the 260 characters of Windows."""

# "Naming Files, Paths, and Namespaces" (learn.microsoft.com): refused by Windows; "/" and ":" also by macOS.
_FORBIDDEN: Final = str.maketrans(dict.fromkeys('<>:"/\\|?*', "_"))
_DEVICES: Final = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    | {f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"}
)
_JOINERS: Final = (
    "\u200c\u200d"  # Persian and Indic scripts and emoji need these; other format characters disguise
)


def safe_name(text: str | None, fallback: str) -> str:
    """``text`` as one segment of a path on Windows, macOS and Linux; ``fallback`` where nothing of it is left.

    It never is a device, hidden, an option, or a path, and holds no control or direction marks. At most
    ``LONGEST_PART_BYTES`` long.
    """
    name = plain_text(text or "").translate(_FORBIDDEN).lstrip(" .-")
    name = name.encode()[:LONGEST_PART_BYTES].decode(errors="ignore").rstrip(f" .{_JOINERS}")
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        name = f"_{name}"
    return name or fallback


def song_name(artist: str | None, title: str | None, fallback: str) -> str:
    """``Artist - Title``, or what there is of it."""
    named = safe_name(title, fallback)
    by = safe_name(artist, "")
    return f"{by} - {named}" if by else named


def numbered(name: str) -> Iterator[str]:
    """``name``, ``name (2)``, ``name (3)`` and so on, for as long as they are taken."""
    yield name
    number = 1
    while True:
        number += 1
        yield f"{name} ({number})"


def comparable(name: str) -> str:
    """Equal for names that some file system takes for the same one: Windows and macOS ignore case and composition."""
    return unicodedata.normalize("NFKC", name).casefold()


def plain_text(text: str) -> str:
    """One line of NFC without control characters, direction marks and other invisible characters."""
    line = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(
        char for char in line if unicodedata.category(char) not in ("Cc", "Cf", "Cs") or char in _JOINERS
    )
