"""The id of a song, which is its partition key: made from what a listing tells, so that no audio is read to know it."""

import hashlib
from pathlib import PurePosixPath
from typing import Final

from slugify import slugify

SLUG_LENGTH: Final = 40  # characters
DIGEST_LENGTH: Final = 12  # hex digits: 48 bits, and only songs of one slug can collide


def song_id(upload_key: str, fingerprint: str) -> str:
    """The partition key of an upload: a readable slug of its file name and a digest of what it is.

    ``fingerprint`` is what a listing tells about the content (the ETag on S3, size and modification time on a
    local disk), so that a replaced upload is a new song and no audio is read to know it.
    """
    stem = PurePosixPath(upload_key).stem
    slug = slugify(stem, max_length=SLUG_LENGTH, word_boundary=False).strip("-") or "song"
    digest = hashlib.sha256(f"{upload_key}\0{fingerprint}".encode(errors="surrogateescape")).hexdigest()[
        :DIGEST_LENGTH
    ]
    return f"{slug}-{digest}"
