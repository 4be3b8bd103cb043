"""Uploads in the object store: listing them as songs, and fetching their bytes."""

import hashlib
import re
import tempfile
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import BinaryIO, Final, cast

from bandscope_dagster.errors import Reason, SongRejected, UploadUnavailable
from bandscope_dagster.pipeline.song_ids import song_id
from bandscope_dagster.storage.objects.keys import fault_of_key
from bandscope_dagster.storage.objects.protocol import ObjectStore, StoredObject

UPLOADS: Final = "uploads"

AUDIO_SUFFIXES: Final = frozenset(
    {".aac", ".aif", ".aifc", ".aiff", ".alac", ".flac", ".m4a", ".m4b", ".mka"}
    | {".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".wave", ".webm", ".wma"}
)
"""File names that are taken for songs. What such a file really holds is found by decoding it."""

UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload, as a listing tells it; no audio is read to know any of this."""

    song_id: str
    key: str
    filename: str  # NFC; data from a stranger, never used as a path
    owner: str | None  # the first folder below uploads/, where there is one
    size: int  # bytes
    uploaded_at: datetime  # UTC
    fault: str | None = None  # why no key is called like this, so that it cannot be read


@dataclass(frozen=True, slots=True)
class Listing:
    """All uploads, oldest first, and how many files were left out because they are not named like audio."""

    uploads: list[Upload]
    ignored: int

    @property
    def by_song(self) -> dict[str, Upload]:
        """The uploads by song id."""
        return {upload.song_id: upload for upload in self.uploads}


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of an upload in an anonymous temporary file, open at its start."""

    file: BinaryIO
    sha256: str
    size: int  # bytes


def is_audio_name(name: str) -> bool:
    """Whether a file of this name is taken for a song."""
    return PurePosixPath(name.strip()).suffix.lower() in AUDIO_SUFFIXES


def printable(name: str) -> str:
    """A name from a stranger with its control characters, and what is no UTF-8, as escapes: ``new\\nline.wav``."""
    return UNPRINTABLE.sub(lambda found: _escaped(found[0]), name)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that Python could not decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _upload(stored: StoredObject) -> Upload:
    key = printable(stored.key)
    folders = key.removeprefix(f"{UPLOADS}/").split("/")
    return Upload(
        song_id=song_id(stored.key, stored.fingerprint),
        key=key,
        filename=unicodedata.normalize("NFC", folders[-1]),
        owner=unicodedata.normalize("NFC", folders[0]) if len(folders) > 1 else None,
        size=stored.size,
        uploaded_at=stored.modified,
        fault=fault_of_key(stored.key),
    )


def list_uploads(store: ObjectStore) -> Listing:
    """Every upload in the store, oldest first; files that are not named like audio are only counted."""
    uploads: list[Upload] = []
    ignored = 0
    for stored in store.list(UPLOADS, any_name=True):
        if is_audio_name(stored.key):
            uploads.append(_upload(stored))
        else:
            ignored += 1
    uploads.sort(key=lambda upload: (upload.uploaded_at, upload.key))
    return Listing(uploads, ignored)


@contextmanager
def fetch_upload(store: ObjectStore, key: str, max_bytes: int) -> Generator[Fetched]:
    """Read an upload once, into a temporary file without a name, and take its digest on the way.

    Raises:
        SongRejected: the upload is empty, or holds more than ``max_bytes``.
        UploadUnavailable: the storage did not give it up.
    """
    digest = hashlib.sha256()
    size = 0
    with tempfile.TemporaryFile(prefix="bandscope-") as file:
        try:
            for chunk in store.chunks(key):
                size += len(chunk)
                if size > max_bytes:
                    raise SongRejected(
                        Reason.TOO_LARGE, f"the file holds more than the {max_bytes:,} bytes that are allowed"
                    )
                digest.update(chunk)
                file.write(chunk)
        except FileNotFoundError:
            raise UploadUnavailable(
                "the upload is no longer in the store; upload it again (it becomes a new song)"
            ) from None
        except OSError as error:
            raise UploadUnavailable(f"the storage did not give the upload up: {error}") from error
        if size == 0:
            raise SongRejected(Reason.EMPTY, "the file holds no bytes")
        file.seek(0)
        yield Fetched(cast(BinaryIO, file), digest.hexdigest(), size)
