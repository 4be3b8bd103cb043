"""Get the packages of ``sources.toml``: from Debian's archive and from npm, checked by SHA-256, unpacked."""

import hashlib
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MANIFEST: Final = Path(__file__).with_name("sources.toml")


class SourceError(Exception):
    """A package cannot be had, or it is not the one in the manifest."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package of the manifest."""

    name: str
    registry: str  # "debian" or "npm"
    version: str
    sha256: str
    licence: str
    what: str


def read_manifest(path: Path = MANIFEST) -> list[Package]:
    """The packages, in the order of the manifest."""
    return [Package(**entry) for entry in tomllib.loads(path.read_text())["packages"]]


class Sources:
    """The packages in a folder."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is created when the first package is fetched."""
        self._folder = folder
        self._packages = {package.name: package for package in read_manifest()}

    def folder(self, name: str) -> Path:
        """Where a package is unpacked to."""
        return self._folder / name.replace("/", "-")

    def fetch(self, note: Callable[[str], None], only: Collection[str] | None = None) -> None:
        """Get and unpack every package that is not there; with ``only``, those of these names.

        Raises:
            SourceError: one cannot be had, or its SHA-256 is not that of the manifest.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for package in self._packages.values():
            target = self.folder(package.name)
            if target.exists() or (only is not None and package.name not in only):
                continue
            note(f"{package.name} {package.version}: {package.what}")
            downloads = self._folder / "download"
            shutil.rmtree(downloads, ignore_errors=True)
            downloads.mkdir()
            file = self._download(package, downloads)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            if digest != package.sha256:
                raise SourceError(
                    f"{package.name} {package.version} has the SHA-256 {digest}; sources.toml expects {package.sha256}"
                )
            unpacked = downloads / "unpacked"
            if package.registry == "debian":
                subprocess.run(["dpkg-deb", "-x", file, unpacked], check=True)
            else:
                with tarfile.open(file) as archive:
                    archive.extractall(unpacked, filter="data")
            unpacked.replace(target)
            shutil.rmtree(downloads)

    @staticmethod
    def _download(package: Package, folder: Path) -> Path:
        wanted = (
            f"{package.name}={package.version}"
            if package.registry == "debian"
            else f"{package.name}@{package.version}"
        )
        command = ["apt-get", "download", wanted] if package.registry == "debian" else ["npm", "pack", wanted]
        if shutil.which(command[0]) is None:
            raise SourceError(f"{command[0]} is needed for {package.name}: use a Debian system with npm")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        files = list(folder.iterdir())
        if done.returncode or len(files) != 1:
            raise SourceError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
        return files[0]
