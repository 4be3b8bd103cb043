"""The id of a song, which is its partition key: computed from the listing of uploads, without reading audio."""

import hashlib
from pathlib import PurePosixPath
from typing import Final

from slugify import slugify

SLUG_LENGTH: Final = 40  # characters
DIGEST_LENGTH: Final = 12  # hex digits, 48 bits; only songs with the same slug can collide


def song_id(upload_key: str, fingerprint: str) -> str:
    """The partition key of an upload: a readable slug of its file name and a digest of key and fingerprint.

    ``fingerprint`` identifies the content in a listing (the ETag on S3, size and modification time on a local disk):
    a replaced upload is a new song.
    """
    digest = hashlib.sha256(f"{upload_key}\0{fingerprint}".encode(errors="surrogateescape")).hexdigest()[
        :DIGEST_LENGTH
    ]
    return f"{slug_of(upload_key)}-{digest}"


def readable_part(song: str) -> str:
    """The readable part of an id: the slug of the file name."""
    return song.rpartition("-")[0]


def slug_of(upload_key: str) -> str:
    """The readable part of the id, from the file name."""
    stem = PurePosixPath(upload_key).stem
    return slugify(stem, max_length=SLUG_LENGTH, word_boundary=False).strip("-") or "song"
