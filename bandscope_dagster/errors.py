"""The errors that carry a decision: a rejected song is data, anything else is a failure."""

from enum import StrEnum


class Reason(StrEnum):
    """Why an upload can never become a song. The code stands before the colon in every ``error`` column."""

    EMPTY = "empty"
    NOT_AUDIO = "not_audio"
    NO_AUDIO_STREAM = "no_audio_stream"
    TRUNCATED = "truncated"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    UNSUPPORTED_FORMAT = "unsupported_format"
    NOT_FINITE = "not_finite"
    DECODER_CRASHED = "decoder_crashed"
    TOO_COSTLY = "too_costly"
    UNUSABLE_NAME = "unusable_name"


UNAVAILABLE = "unavailable"
"""Stands before the colon where the storage did not give an upload up."""

FAILED = "failed"
"""Stands before the colon where anything else went wrong that is no property of the upload."""


def has_failed(error: str | None) -> bool:
    """Whether an ``error`` of ``songs`` is a failure, which may be mended, and not a rejection, which stays."""
    return error is not None and error.partition(":")[0] in (UNAVAILABLE, FAILED)


class BandscopeError(Exception):
    """Base of every error that Bandscope raises on purpose; its text is written for the person who reads it."""


class SongRejected(BandscopeError):
    """A permanent property of the upload makes it unusable: it is recorded as data and never retried.

    ``str(error)`` is ``"<reason>: <message>"``, as it is stored in the tables.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason.value}: {message}")
        self.reason = reason
        self.message = message


class UploadUnavailable(BandscopeError):
    """The storage did not give the upload up; another attempt may succeed."""


class CannotAnalyze(BandscopeError):
    """The song cannot be analyzed in this run, however often it is tried; the message says what mends it.

    Raised where ``songs`` could not read the upload, where the upload has changed since, and where a table that is
    read holds nothing for the song.
    """


class ModelFileError(BandscopeError):
    """A model file is missing or is not the one in the inventory; the message names the command that mends it."""


class SettingsError(BandscopeError):
    """A setting has no usable value; the message names the variable, the value and what is accepted."""
