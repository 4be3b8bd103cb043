"""``bandscope ingest``: uploads local files to ``uploads/``. Unchanged files stay the same songs."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import progress_bar
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.pipeline.uploads import AUDIO_SUFFIXES, UPLOADS, is_audio_name
from bandscope_dagster.storage.objects.keys import check_key
from bandscope_dagster.storage.objects.protocol import CHUNK_BYTES, ObjectStore


class IngestError(BandscopeError):
    """A path or an owner cannot be used; nothing was uploaded."""


class Ingested(StrEnum):
    """The outcome for one file."""

    UPLOADED = "uploaded"
    UNCHANGED = "already uploaded"
    REPLACED = "replaced"
    CONFLICT = (
        "skipped: a different file with this name is uploaded (--replace uploads this one as a new song)"
    )


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to upload, and its key in the store."""

    path: Path
    key: str
    size: int  # bytes


def find_files(paths: Iterable[Path], owner: str | None) -> list[LocalFile]:
    """The audio files at and below ``paths``, ordered by name. Subfolders are kept in the keys.

    Hidden files and folders are skipped, such as macOS's ``._song.mp3`` beside every ``song.mp3``.

    Raises:
        IngestError: a path does not exist, has no audio files, or cannot become a key.
    """
    if owner is not None:
        _check_owner(owner)
    files: list[LocalFile] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and _is_wanted(file, path))
            if not found:
                raise IngestError(
                    f"{path} has no files with a supported extension; supported: {_supported()}"
                )
            files += [_local_file(file, file.relative_to(path).as_posix(), owner) for file in found]
        elif path.is_file() and not is_audio_name(path.name):
            raise IngestError(f"{path} has an unsupported extension; supported: {_supported()}")
        elif path.is_file():
            files.append(_local_file(path, path.name, owner))
        else:
            raise IngestError(f"{path} does not exist")
    twice = [key for key, count in Counter(file.key for file in files).items() if count > 1]
    if twice:
        raise IngestError(
            f"several files would become the same upload; rename them or ingest them one by one: "
            f"{', '.join(sorted(twice))}"
        )
    return files


def ingest_files(
    store: ObjectStore,
    console: Console,
    paths: Iterable[Path],
    owner: str | None,
    *,
    replace: bool,
) -> bool:
    """Upload the audio files at and below ``paths``, and print the number of files by outcome.

    Returns True if a file was skipped because a different file has its name.
    """
    files = find_files(paths, owner)
    counts: Counter[Ingested] = Counter()
    with progress_bar(console) as progress:
        task = progress.add_task("uploading", total=len(files))
        for file in files:
            outcome = ingest(store, file, replace=replace)
            counts[outcome] += 1
            if outcome is Ingested.CONFLICT:
                progress.console.print(f"{escape(file.key)}: {outcome}", highlight=False)
            progress.advance(task)
    for outcome, count in counts.items():
        console.print(f"{count} {outcome.partition(':')[0]}", highlight=False)
    console.print(f"Uploads: {escape(store.uri(UPLOADS))}", highlight=False, soft_wrap=True)
    return counts[Ingested.CONFLICT] > 0


def ingest(store: ObjectStore, file: LocalFile, *, replace: bool) -> Ingested:
    """Upload one file, unless the same bytes are already uploaded under its key."""
    found = store.head(file.key)
    if found is None:
        _upload(store, file)
        return Ingested.UPLOADED
    if found.size == file.size and _sha256(store.chunks(file.key)) == _sha256(_chunks(file.path)):
        return Ingested.UNCHANGED
    if not replace:
        return Ingested.CONFLICT
    _upload(store, file)
    return Ingested.REPLACED


def _supported() -> str:
    return ", ".join(sorted(AUDIO_SUFFIXES))


def _check_owner(owner: str) -> None:
    try:
        check_key(owner)
    except ValueError as error:
        raise IngestError(f"invalid owner: {error}") from None
    if "/" in owner or not owner.strip():
        raise IngestError(f"invalid owner {owner!r}; use one name without a slash")


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
