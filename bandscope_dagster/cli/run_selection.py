"""Which songs ``bandscope run`` takes."""

from collections.abc import Sequence

from bandscope_dagster.cli.status import is_called
from bandscope_dagster.errors import BandscopeError


class RunError(BandscopeError):
    """The command cannot start, or was stopped; the message says why."""


def matching(songs: Sequence[str], names: dict[str, str], pattern: str | None) -> list[str]:
    """The songs whose id or file name is ``pattern`` or matches it as a glob; all of them where there is none."""
    if pattern is None:
        return list(songs)
    return [song for song in songs if is_called(pattern, song, names.get(song))]
