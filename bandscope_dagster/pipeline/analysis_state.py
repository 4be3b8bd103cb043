"""The states of one song in ``analyze``, and the transitions between them, which several threads make."""

import threading
from collections.abc import Mapping
from enum import Enum
from typing import Final


class AnalysisState(Enum):
    """The states of a song.

    A song without errors goes through READING, TAGGING, COMMITTING, DONE. An error before COMMITTING leads to FAILING
    if the model's thread finds it, and directly to FAILED if the writer thread does. An error in COMMITTING leads to
    FAILED. DONE and FAILED are final.
    """

    READING = "reading"
    """Audio of the song still arrives. Every song begins here."""
    TAGGING = "tagging"
    """All audio has arrived, and windows wait for the tagger. Set by the model's thread."""
    COMMITTING = "committing"
    """The writer thread publishes the tables. Set by the model's thread once no window waits."""
    FAILING = "failing"
    """An error is known, and the writer thread has yet to discard unfinished files. Set by the model's thread."""
    DONE = "done"
    """All tables are published. Set by the writer thread."""
    FAILED = "failed"
    """Unfinished files are discarded; tables published before the error stay. Set by the writer thread."""


_S = AnalysisState
TRANSITIONS: Final[Mapping[AnalysisState, frozenset[AnalysisState]]] = {
    _S.READING: frozenset({_S.TAGGING, _S.FAILING, _S.FAILED}),
    _S.TAGGING: frozenset({_S.COMMITTING, _S.FAILING, _S.FAILED}),
    _S.COMMITTING: frozenset({_S.DONE, _S.FAILED}),
    _S.FAILING: frozenset({_S.FAILED}),
    _S.DONE: frozenset(),
    _S.FAILED: frozenset(),
}
"""State → the states that may follow it."""


class StateMachine:
    """The current state and the first error of one song; safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._state = AnalysisState.READING
        self._error: Exception | None = None

    @property
    def state(self) -> AnalysisState:
        """The current state."""
        with self._changed:
            return self._state

    @property
    def error(self) -> Exception | None:
        """The error that took the song to FAILING or FAILED; the first, if there were several."""
        with self._changed:
            return self._error

    def move(self, to: AnalysisState, error: Exception | None = None) -> bool:
        """Change to ``to``; return False, and change nothing, if it may not follow the current state.

        False is not an error: another thread has ended the song in the meantime. FAILING and FAILED need an ``error``.
        """
        with self._changed:
            if to not in TRANSITIONS[self._state]:
                return False
            self._state = to
            self._error = self._error or error
            self._changed.notify_all()
            return True

    def wait_for_writer(self) -> None:
        """Block while the writer thread has yet to end the song: in COMMITTING and FAILING."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._state not in (AnalysisState.COMMITTING, AnalysisState.FAILING)
            )
