"""Bring local files into ``uploads/``: what is already there stays as it is, so that it stays the same song."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.pipeline.uploads import AUDIO_SUFFIXES, UPLOADS, is_audio_name
from bandscope_dagster.storage.objects.keys import check_key
from bandscope_dagster.storage.objects.protocol import CHUNK_BYTES, ObjectStore


class IngestError(BandscopeError):
    """A path or an owner that cannot be ingested; nothing was uploaded."""


class Ingested(StrEnum):
    """What became of one file."""

    UPLOADED = "uploaded"
    UNCHANGED = "already there"
    REPLACED = "replaced"
    CONFLICT = "left out: another file of that name is there (--replace uploads it as a new song)"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to upload, and the key that it gets."""

    path: Path
    key: str
    size: int  # bytes


def find_files(paths: Iterable[Path], owner: str | None) -> list[LocalFile]:
    """The audio files at and below ``paths``, in name order; folders keep their shape below ``uploads/``.

    Hidden files and folders, such as macOS's ``._song.mp3`` beside every ``song.mp3``, are passed over.

    Raises:
        IngestError: a path does not exist, holds no audio, or makes no usable key.
    """
    if owner is not None:
        _check_owner(owner)
    files: list[LocalFile] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and _is_wanted(file, path))
            if not found:
                raise IngestError(f"{path} holds no file that is named like audio")
            files += [_local_file(file, file.relative_to(path).as_posix(), owner) for file in found]
        elif path.is_file() and not is_audio_name(path.name):
            raise IngestError(
                f"{path} is not named like audio; known are {', '.join(sorted(AUDIO_SUFFIXES))}"
            )
        elif path.is_file():
            files.append(_local_file(path, path.name, owner))
        else:
            raise IngestError(f"{path} does not exist; give files or folders")
    twice = [key for key, count in Counter(file.key for file in files).items() if count > 1]
    if twice:
        raise IngestError(f"several files would become the same upload: {', '.join(sorted(twice))}")
    return files


def ingest(store: ObjectStore, file: LocalFile, *, replace: bool) -> Ingested:
    """Upload one file, unless its bytes are there already."""
    there = store.head(file.key)
    if there is None:
        _upload(store, file)
        return Ingested.UPLOADED
    if there.size == file.size and _sha256(store.chunks(file.key)) == _sha256(_chunks(file.path)):
        return Ingested.UNCHANGED
    if not replace:
        return Ingested.CONFLICT
    _upload(store, file)
    return Ingested.REPLACED


def _check_owner(owner: str) -> None:
    try:
        check_key(owner)
    except ValueError as error:
        raise IngestError(f"the owner cannot be used: {error}") from None
    if "/" in owner or not owner.strip():
        raise IngestError(f"the owner {owner!r} cannot be used: give one name without a slash")


def _is_wanted(file: Path, folder: Path) -> bool:
    hidden = any(name.startswith(".") for name in file.relative_to(folder).parts)
    return not hidden and is_audio_name(file.name)


def _local_file(path: Path, name: str, owner: str | None) -> LocalFile:
    key = unicodedata.normalize("NFC", "/".join(filter(None, (UPLOADS, owner, name))))
    try:
        return LocalFile(path, check_key(key), path.stat().st_size)
    except ValueError as error:
        raise IngestError(f"{path}: {error}; rename the file or its folder") from None


def _upload(store: ObjectStore, file: LocalFile) -> None:
    with store.create(file.key) as pending:
        for chunk in _chunks(file.path):
            pending.write(chunk)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
