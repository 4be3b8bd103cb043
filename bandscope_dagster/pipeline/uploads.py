"""Uploads in the object store: list them as songs, and fetch their bytes."""

import hashlib
import re
import tempfile
import unicodedata
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from time import sleep
from typing import BinaryIO, Final, cast

from bandscope_dagster.errors import Reason, SongRejected, UploadGone, UploadUnavailable
from bandscope_dagster.songs.find import select
from bandscope_dagster.songs.forgotten import forgotten_songs
from bandscope_dagster.songs.song_ids import song_id
from bandscope_dagster.storage.objects.keys import HIDDEN, fault_of_key, hidden_part
from bandscope_dagster.storage.objects.protocol import ObjectStore, StoredObject

UPLOADS: Final = "uploads"

AUDIO_SUFFIXES: Final = frozenset(
    {".3g2", ".3gp", ".aac", ".adts", ".aif", ".aifc", ".aiff", ".alac", ".asf", ".bwf", ".caf", ".flac"}
    | {
        ".m4a",
        ".m4b",
        ".m4r",
        ".m4v",
        ".mka",
        ".mkv",
        ".mov",
        ".mp2",
        ".mp3",
        ".mp4",
        ".mpga",
        ".oga",
        ".ogg",
    }
    | {".ogv", ".opus", ".qt", ".rf64", ".w64", ".wav", ".wave", ".webm", ".wma", ".wmv", ".wv"}
)
"""Extensions of uploads that become songs: those of the containers in ``audio/container.py``.

Decoding shows the real content of a file.
"""

UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload, as a listing describes it; no audio was read."""

    song_id: str
    key: str
    filename: str  # NFC; untrusted, never used as a path
    owner: str | None  # the first folder below uploads/, if there is one
    size: int  # bytes
    uploaded_at: datetime  # UTC
    fault: str | None = None  # the reason why the key is invalid, so that the upload cannot be read


@dataclass(frozen=True, slots=True)
class Listing:
    """All uploads, oldest first, and the number of files that were ignored for their extension."""

    uploads: list[Upload]
    ignored: int
    unsettled: int = 0  # files that may still be copied into the folder
    # What cannot be listed, hidden songs, and hidden folders with songs, each as "key: reason".
    left_out: tuple[str, ...] = ()
    forgotten: frozenset[str] = frozenset()  # songs with a tombstone; their uploads are not in ``uploads``
    hidden: tuple[Upload, ...] = ()  # the uploads of forgotten songs that are still in the store

    @property
    def is_empty(self) -> bool:
        """True if there is no file at all in ``uploads/``."""
        return not (self.uploads or self.ignored or self.unsettled or self.left_out or self.forgotten)

    @property
    def is_complete(self) -> bool:
        """False if an upload that is not listed may be there: there is none, or something is left out or unsettled."""
        return bool(self.uploads) and not (self.left_out or self.unsettled)

    @property
    def names(self) -> dict[str, str]:
        """The file names by song id."""
        return {upload.song_id: upload.filename for upload in self.uploads}

    def matching(self, songs: Iterable[str], pattern: str) -> set[str]:
        """Those of ``songs`` whose id or file name matches ``pattern``, as in ``songs.find.select``.

        Raises:
            NoSuchSong: none does.
        """
        names = self.names
        return set(select({song: (names.get(song),) for song in songs}, pattern))

    @property
    def by_song(self) -> dict[str, Upload]:
        """The uploads by song id."""
        return {upload.song_id: upload for upload in self.uploads}


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of an upload in an anonymous temporary file, positioned at its start."""

    file: BinaryIO
    sha256: str
    size: int  # bytes


def is_audio_name(name: str) -> bool:
    """True if an upload with this name becomes a song."""
    return PurePosixPath(name.strip()).suffix.lower() in AUDIO_SUFFIXES


def is_companion(name: str) -> bool:
    """True for a file such as ``._song.mp3``, which macOS writes beside ``song.mp3`` on other systems' disks."""
    return PurePosixPath(name).name.startswith("._")


def printable(name: str) -> str:
    """An untrusted name with control characters and invalid UTF-8 as escapes: ``new\\nline.wav``."""
    return UNPRINTABLE.sub(lambda found: _escaped(found[0]), name)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
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


def list_uploads(store: ObjectStore, settle_s: float = 0.0) -> Listing:
    """Every upload in the store but those of forgotten songs, oldest first; other files are counted only.

    A file on a local disk that another program may still be writing counts as ``unsettled`` until its time has not
    changed for ``settle_s``. What ``bandscope ingest`` writes appears whole, and so do objects on S3.
    """
    uploads: list[Upload] = []
    hidden: list[Upload] = []
    ignored = unsettled = 0
    now = datetime.now(UTC)
    forgotten = forgotten_songs(store)
    left_out: dict[str, None] = {}  # in the order of the listing

    def leave_out(key: str, fault: str) -> bool:
        told = fault != HIDDEN or (is_audio_name(key) and not is_companion(key))
        if told:
            left_out[f"{hidden_part(key) if fault == HIDDEN else key}: {fault}"] = None
        return told

    for stored in store.list(UPLOADS, any_name=True, left_out=leave_out):
        if not is_audio_name(stored.key):
            ignored += 1
        elif stored.may_grow and abs((now - stored.modified).total_seconds()) < settle_s:
            unsettled += 1
        else:
            upload = _upload(stored)
            (hidden if upload.song_id in forgotten else uploads).append(upload)
    uploads.sort(key=lambda upload: (upload.uploaded_at, upload.key))
    return Listing(uploads, ignored, unsettled, tuple(left_out), forgotten, tuple(hidden))


def list_settled_uploads(store: ObjectStore, settle_s: float, on_wait: Callable[[int], object]) -> Listing:
    """The uploads, after waiting ``settle_s`` once for files that may still be written.

    ``on_wait`` is called with their number before the wait.
    """
    listing = list_uploads(store, settle_s)
    if listing.unsettled:
        on_wait(listing.unsettled)
        sleep(settle_s)
        listing = list_uploads(store, settle_s)
    return listing


def is_replaced(store: ObjectStore, song: str, key: str | None) -> bool:
    """True if another file than the song's upload has its ``key``; False if there is none."""
    found = store.head(key) if key is not None and fault_of_key(key) is None else None
    return found is not None and song_id(found.key, found.fingerprint) != song


def _check_same(store: ObjectStore, key: str, listed_as: str) -> None:
    found = store.head(key)
    if found is None:
        raise FileNotFoundError(key)
    if song_id(key, found.fingerprint) != listed_as:
        raise SongRejected(
            Reason.REPLACED,
            "another file took its place after it was listed, and is a new song in the next run",
        )


@contextmanager
def fetch_upload(
    store: ObjectStore, key: str, max_bytes: int, listed_as: str | None = None
) -> Generator[Fetched]:
    """Read an upload once, into an anonymous temporary file, and compute its digest.

    ``listed_as`` is the song id from the listing. What was read must still be the file of that listing.

    Raises:
        SongRejected: the upload is empty, larger than ``max_bytes``, or was replaced.
        UploadGone: the upload is no longer in the store.
        UploadUnavailable: the upload cannot be read from the store.
    """
    digest = hashlib.sha256()
    size = 0
    with tempfile.TemporaryFile(prefix="bandscope-") as file:
        try:
            for chunk in store.chunks(key):
                size += len(chunk)
                if size > max_bytes:
                    raise SongRejected(Reason.TOO_LARGE, f"the file exceeds the limit of {max_bytes:,} bytes")
                digest.update(chunk)
                file.write(chunk)
            if listed_as is not None:
                _check_same(store, key, listed_as)
        except FileNotFoundError:
            raise UploadGone(
                "the upload is no longer in the store; upload it again (it becomes a new song)"
            ) from None
        except OSError as error:
            raise UploadUnavailable(f"the upload cannot be read from the store: {error}") from error
        if size == 0:
            raise SongRejected(Reason.EMPTY, "the file is empty; upload it again")
        file.seek(0)
        yield Fetched(cast(BinaryIO, file), digest.hexdigest(), size)
