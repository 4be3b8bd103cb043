"""``bandscope ingest``: uploads local files to ``uploads/``. Unchanged files stay the same songs."""

import errno
import hashlib
import os
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import one_line, progress_bar
from bandscope_dagster.errors import BandscopeError, counted
from bandscope_dagster.pipeline.uploads import AUDIO_SUFFIXES, UPLOADS, is_audio_name, is_companion
from bandscope_dagster.storage.objects.keys import HIDDEN, check_key, is_hidden
from bandscope_dagster.storage.objects.probe import require_writable
from bandscope_dagster.storage.objects.protocol import CHUNK_BYTES, ObjectStore

SHOWN_NAMES: Final = 3  # of each extension
OF_ONE_NAME: Final = {
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EILSEQ,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
}
"""Errors of a store on a disk that concern one name, such as a file whose name a folder has."""


class IngestError(BandscopeError):
    """The owner cannot be used; nothing was uploaded."""


class Ingested(StrEnum):
    """The outcome for one file."""

    UPLOADED = "uploaded"
    UNCHANGED = "already uploaded"
    REPLACED = "replaced"
    CONFLICT = "a different file with this name is uploaded; --replace uploads this one as a new song"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to upload, and its key in the store."""

    path: Path
    key: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Found:
    """The files to upload, and for each path that is left out a line with the reason."""

    files: list[LocalFile]
    left_out: list[str]
    passed_over: list[str] = field(default_factory=list[str])  # names of files in folders that are no audio


@dataclass(frozen=True, slots=True)
class Given:
    """The result of one call."""

    keys: list[str]  # of the given files that are in the store now
    complete: bool  # False if anything was left out, or skipped because a different file has its name


def find_files(
    paths: Sequence[str | Path],
    owner: str | None,
    store_root: Path | None = None,
    exports: Path | None = None,
) -> Found:
    """The audio files at and below ``paths``, ordered by name. Subfolders are kept in the keys.

    In a folder, files without an extension of audio are passed over, and macOS's ``._song.mp3`` beside ``song.mp3``.
    What cannot be uploaded does not stop the others: a hidden name or another one that cannot become a key, an
    unreadable folder, an empty file, a link that leads out of the given folder, files that would become the same
    upload, and files below ``store_root``, the store's own folder. A file that is given twice, such as in a folder and
    in one of its subfolders, is taken once. The folder ``exports`` inside a given one is passed over.

    Raises:
        IngestError: the owner cannot be used.
    """
    if owner is not None:
        _check_owner(owner)
    files: list[LocalFile] = []
    left_out: list[str] = []
    passed_over: list[str] = []

    def leave_out(path: Path, reason: object) -> None:
        left_out.append(f"{one_line(path)}: {one_line(reason)}")

    def add(path: Path, name: str) -> None:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return leave_out(path, "not a file")
            if store_root is not None and path.resolve().is_relative_to(store_root):
                return leave_out(path, "is in the store already")
            with path.open("rb") as file:  # raises if it may not be read
                if not file.read(1):
                    return leave_out(path, "the file is empty")
            files.append(_local_file(path, name, owner))
        except OSError as error:  # such as a link to itself, or no permission
            leave_out(path, error.strerror or error)
        except ValueError as error:
            leave_out(path, f"{error}; rename the file or its folder")

    for path in map(Path, filter(str, paths)):
        if path.is_dir():
            before = len(files) + len(left_out)
            root = path.resolve()
            inside = exports is not None and root in exports.resolve().parents
            for file in sorted(_walk(path, lambda error: leave_out(Path(error.filename), error.strerror))):
                if inside and exports is not None and file.resolve().is_relative_to(exports.resolve()):
                    continue
                inner = file.relative_to(path).as_posix()
                if is_companion(file.name) or (is_hidden(inner) and not is_audio_name(file.name)):
                    continue
                if not is_audio_name(file.name):
                    passed_over.append(file.name)
                elif is_hidden(inner):
                    leave_out(file, HIDDEN)
                elif file.is_symlink() and not _leads_into(file, root):
                    leave_out(file, "a link that leads out of the given folder; give its target to upload it")
                else:
                    add(file, inner)
            if len(files) + len(left_out) == before:
                leave_out(path, f"has no files with a supported extension; supported: {_supported()}")
        elif os.path.lexists(path) and not is_audio_name(path.name):
            leave_out(path, f"unsupported extension; supported: {_supported()}")
        elif os.path.lexists(path):
            add(path, path.name)
        else:
            leave_out(path, "does not exist")
    if not all(map(str, paths)):
        left_out.append("an empty path: give a file or a folder")
    once: dict[str, LocalFile] = {}
    for file in files:
        once.setdefault(os.path.abspath(file.path), file)
    files = list(once.values())
    keys = Counter(file.key for file in files)
    for file in files:
        if keys[file.key] > 1:
            leave_out(
                file.path, f"several files would become {file.key}; rename them or ingest them one by one"
            )
    files = [file for file in files if keys[file.key] == 1]
    return Found(files, list(dict.fromkeys(left_out)), passed_over)


def ingest_files(
    store: ObjectStore,
    console: Console,
    paths: Sequence[str | Path],
    owner: str | None,
    *,
    replace: bool,
    exports: Path | None = None,
) -> Given:
    """Upload the audio files at and below ``paths``; print the number of files by outcome, and what is left out.

    A folder ``exports`` inside a given one is passed over.
    """
    found = find_files(paths, owner, None if store.url.startswith("s3://") else Path(store.url), exports)
    left_out = list(found.left_out)
    if found.files:
        require_writable(store)
    counts: Counter[Ingested] = Counter()
    keys: list[str] = []
    with progress_bar(console, hidden=not found.files) as progress:
        task = progress.add_task("uploading", total=len(found.files))
        for file in found.files:
            try:
                outcome = ingest(store, file, replace=replace)
            except UnreadableFile as error:
                left_out.append(f"{one_line(file.path)}: {one_line(error)}")
            except OSError as error:
                if error.errno not in OF_ONE_NAME:
                    raise
                left_out.append(f"{one_line(file.path)}: {error.strerror} in the store; rename the file")
            else:
                if outcome is Ingested.CONFLICT:
                    left_out.append(f"{one_line(file.path)}: {outcome}")
                else:
                    counts[outcome] += 1
                    keys.append(file.key)
            progress.advance(task)
    for outcome, count in counts.items():
        console.print(f"{count} {outcome}", highlight=False)
    _print_left_out(console, left_out, found.passed_over)
    console.print(f"Uploads: {escape(store.uri(UPLOADS))}", highlight=False, soft_wrap=True)
    return Given(keys, complete=not left_out)


def _print_left_out(console: Console, left_out: Sequence[str], passed_over: Sequence[str]) -> None:
    """Print a line for each file that is left out, and for each extension of the files that are no audio."""
    if left_out:
        console.print(f"{len(left_out)} left out:", highlight=False)
    for line in left_out:
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    if not passed_over:
        return
    console.print(f"{counted(len(passed_over), 'other file')}, no audio by the extension:", highlight=False)
    names = defaultdict[str, list[str]](list)
    for name in passed_over:
        names[Path(name).suffix.lower()].append(one_line(name))
    for suffix, found in sorted(names.items()):
        shown = ", ".join(found[:SHOWN_NAMES]) + (", …" if len(found) > SHOWN_NAMES else "")
        text = f"  {len(found)} {one_line(suffix) or 'without an extension'}: {shown}"
        console.print(escape(text), highlight=False, soft_wrap=True)


class UnreadableFile(BandscopeError):
    """A local file could not be read to its end; it was not uploaded."""


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


def _walk(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """The files below ``folder``. Links to folders are not followed: they are in ``folders``."""
    for parent, _, names in os.walk(folder, onerror=on_error):
        yield from (Path(parent, name) for name in names)


def _leads_into(link: Path, root: Path) -> bool:
    """True if the link's target is below ``root``, and for a link that leads nowhere."""
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # a loop; it is reported when it is opened
        return True


def _local_file(path: Path, name: str, owner: str | None) -> LocalFile:
    """Raises ValueError if the name cannot become a key."""
    key = unicodedata.normalize("NFC", "/".join(filter(None, (UPLOADS, owner, name))))
    return LocalFile(path, check_key(key), path.stat().st_size)


def _upload(store: ObjectStore, file: LocalFile) -> None:
    with store.create(file.key) as pending:
        for chunk in _chunks(file.path):
            pending.write(chunk)


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:  # deleted meanwhile, or a failing disk
        raise UnreadableFile(f"cannot be read: {error.strerror}") from error


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
