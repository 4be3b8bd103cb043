"""The failed songs of ``bandscope run --watch``: each is computed again after waits that grow, and then given up."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Final

FIRST_WAIT_S: Final = 30.0  # until a failed song is computed again; doubles each time
ATTEMPTS: Final = 6  # runs for a song; then it waits for the next start


@dataclass(slots=True)
class _Failed:
    attempts: int = 0
    due: float = inf  # by the monotonic clock; infinite during its run
    disk_was_full: bool = False


class SongsAgain:
    """Failed songs, and when each is computed again."""

    def __init__(self) -> None:
        self._failed: dict[str, _Failed] = {}

    @property
    def next_in_s(self) -> float:
        """Seconds until a song is due; infinite if none is."""
        return min((song.due for song in self._failed.values()), default=inf) - monotonic()

    def failed(self, song_id: str, *, disk_was_full: bool) -> bool:
        """Note that the run over a song has failed; False if the song is given up.

        A full disk is no reason to give up, however often: it says nothing about the song.
        """
        song = self._failed.setdefault(song_id, _Failed())
        song.disk_was_full = disk_was_full
        if not (disk_was_full and song.attempts == ATTEMPTS - 1):
            song.attempts += 1
        if song.attempts >= ATTEMPTS:
            del self._failed[song_id]
            return False
        song.due = monotonic() + FIRST_WAIT_S * 2 ** (song.attempts - 1)
        return True

    def done(self, songs: Collection[str]) -> None:
        """Forget songs that need no further run."""
        for song_id in songs:
            self._failed.pop(song_id, None)

    def keep(self, known: Collection[str]) -> None:
        """Forget all songs but the ``known`` ones."""
        self.done(self._failed.keys() - set(known))

    def take(self, has_room: Callable[[str], bool]) -> tuple[list[str], int]:
        """The songs to compute again now, and the number of due songs that wait for room on the disk.

        ``has_room`` is asked for each song for which the disk was full.
        """
        now, taken, wait = monotonic(), list[str](), 0
        for song_id, song in self._failed.items():
            if song.due > now:
                continue
            if song.disk_was_full and not has_room(song_id):
                song.due, wait = now + FIRST_WAIT_S, wait + 1
            else:
                song.due = inf
                taken.append(song_id)
        return taken, wait
