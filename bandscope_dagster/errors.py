"""Errors. The class decides: SongRejected is stored as a result, all others are failures."""

from enum import StrEnum


class Reason(StrEnum):
    """The reasons to reject an upload: the code before the colon in every ``error`` column."""

    EMPTY = "empty"
    NOT_AUDIO = "not_audio"
    NO_AUDIO_STREAM = "no_audio_stream"
    TRUNCATED = "truncated"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    UNSUPPORTED_FORMAT = "unsupported_format"
    NOT_FINITE = "not_finite"
    TOO_LOUD = "too_loud"
    DECODER_CRASHED = "decoder_crashed"
    TOO_COSTLY = "too_costly"
    UNUSABLE_NAME = "unusable_name"
    REPLACED = "replaced"


MAY_PASS = (Reason.DECODER_CRASHED, Reason.TOO_COSTLY)
"""Reasons that may be those of a busy machine."""

LASTING = frozenset(reason.value for reason in Reason if reason not in MAY_PASS)
"""Codes of the reasons that the same upload has each time."""

UNAVAILABLE = "unavailable"
"""Reason code if the storage could not return an upload."""

FAILED = "failed"
"""Reason code if it failed for any other reason that is not a property of the upload."""


UPSTREAM = "upstream: "
"""The beginning of an error in an analysis table that repeats the song's error in ``songs``."""


def is_failure(error: str | None) -> bool:
    """True if an ``error`` of ``songs`` is a failure, which a retry may fix, and not a rejection."""
    return error is not None and error.partition(":")[0] in (UNAVAILABLE, FAILED)


def is_lasting(error: str) -> bool:
    """True if an error is a rejection that the same upload gets each time."""
    return error.partition(":")[0] in LASTING


def counted(number: int, noun: str) -> str:
    """The number with its noun, for messages: "1 file", "2 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class BandscopeError(Exception):
    """Base of all errors that Bandscope raises on purpose. Their text is for the user."""


class SongRejected(BandscopeError):
    """The upload has a permanent property that makes it unusable. It is recorded as data and never retried.

    ``str(error)`` is ``"<reason>: <message>"``, as in the tables.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason.value}: {message}")
        self.reason = reason
        self.message = message


class UploadUnavailable(BandscopeError):
    """The storage could not return the upload; a retry may succeed."""


class CannotAnalyze(BandscopeError):
    """The song cannot be analyzed in this run, and retries do not help. The message says how to fix it.

    Raised if ``songs`` could not read the upload, if the upload has changed since then, or if a required table has
    no row for the song.
    """


class UploadGone(UploadUnavailable, CannotAnalyze):
    """The upload was removed before it was read. It may come back, but not within a run."""


class ServerUnavailable(BandscopeError):
    """The server of a tagger cannot be reached, or is too busy; a retry may succeed."""


class ServerRefused(CannotAnalyze):
    """The server of a tagger answers, and refuses the request: the same request is refused each time.

    ``status`` is that of HTTP; None if the request could not even be sent.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ModelFileError(BandscopeError):
    """A model file is missing, or differs from the inventory. The message has the command that fixes it."""


class SettingsError(BandscopeError):
    """A setting has an invalid value. The message has the variable, the value and the accepted values."""
