"""The folders of exported songs, each with a record of its song and its complete files, so that exports can resume."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bandscope_dagster.exporting.names import comparable, numbered
from bandscope_dagster.storage.objects.open_store import open_folder
from bandscope_dagster.storage.objects.protocol import ObjectStore

RECORD: Final = ".export.json"  # hidden: what is seen in a folder is what was asked for
LISTED_RECORD: Final = (
    "export.json"  # the same, where it was asked for; in folders of version 0.1 the only one
)


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """The record of one exported file."""

    size: int  # bytes
    recipe: str  # digest of everything that the file was made from
    gain_db: float | None = None  # relative to the true level; None for files without audio
    separation: str | None = None  # digest that all stems of one separation share; None for other files


@dataclass(frozen=True, slots=True)
class SongFolder:
    """The folder of one song; it may not exist yet."""

    target: ObjectStore
    name: str
    song_id: str
    files: Mapping[str, ExportedFile]  # name → record of a file from before

    @property
    def path(self) -> Path:
        """The folder's path."""
        return Path(self.target.url) / self.name

    def key(self, file: str) -> str:
        """The key of a file in the folder."""
        return f"{self.name}/{file}"

    def holds(self, file: str, recipe: str) -> bool:
        """True if the file exists, is complete, and was made by this recipe."""
        known = self.files.get(file)
        found = self.target.head(self.key(file)) if known and known.recipe == recipe else None
        return known is not None and found is not None and found.size == known.size

    def write_record(self, files: Mapping[str, ExportedFile], *, listed: bool) -> None:
        """Record the song of this folder, and its complete files; with ``listed`` also as a visible file.

        A visible record from before stays up to date.
        """
        record = {
            "bandscope_song_id": self.song_id,
            "files": {name: asdict(file) for name, file in files.items()},
        }
        data = json.dumps(record, indent=1, sort_keys=True).encode()
        if listed or self.target.head(self.key(LISTED_RECORD)) is not None:
            with self.target.create(self.key(LISTED_RECORD)) as pending:
                pending.write(data)
        self.path.mkdir(parents=True, exist_ok=True)
        unfinished = self.path / f"{RECORD}.part"  # not by the store, where no key is hidden
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path / RECORD)


class ExportFolder:
    """A local folder with one folder per song. Files appear in it complete; remains of a killed export are removed."""

    def __init__(self, to: Path) -> None:
        """Raises NotAStore if ``to`` is a URL."""
        self.target = open_folder(to)
        root = Path(self.target.url)
        self._names = {comparable(name): name for name in (os.listdir(root) if root.exists() else ())}

    def folder_of(self, song_id: str, name: str) -> SongFolder:
        """The song's folder from an earlier export, or else the first free one of ``name``, ``name (2)``, …."""
        for candidate in numbered(name):
            taken = self._names.get(comparable(candidate))
            if taken is None:
                return SongFolder(self.target, candidate, song_id, {})
            owner, files = self._record(taken)
            if owner == song_id or self._is_empty(taken):
                return SongFolder(self.target, taken, song_id, files)
        raise AssertionError("the candidates never end")

    def claim(self, folder: SongFolder, trusted: Mapping[str, ExportedFile]) -> None:
        """Record that the folder belongs to the song, before files are written; keeps the ``trusted`` files.

        Raises:
            FileExistsError: another program has created a folder of this name since ``folder_of``.
        """
        if comparable(folder.name) not in self._names and os.path.lexists(folder.path):
            raise FileExistsError(f"another program has created {folder.path}; export the song again")
        folder.write_record(trusted, listed=False)
        self._names[comparable(folder.name)] = folder.name

    def _is_empty(self, name: str) -> bool:
        """True for an empty folder, as an export leaves if it is killed before it writes the record."""
        path = Path(self.target.url) / name
        return path.is_dir() and all(each.name.startswith(RECORD) for each in path.iterdir())

    def _record(self, name: str) -> tuple[str | None, dict[str, ExportedFile]]:
        folder = Path(self.target.url) / name
        for kind in (RECORD, LISTED_RECORD):
            try:
                record: dict[str, Any] = json.loads((folder / kind).read_bytes())
                files = {file: ExportedFile(**known) for file, known in record["files"].items()}
                return record["bandscope_song_id"], files
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # not a record of ours: the folder is left as it is
        return None, {}  # a folder that no export made
