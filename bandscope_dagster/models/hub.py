"""Access to a model's pinned revision on the Hugging Face hub. Only this module may use the hub."""

import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.checkpoint import INDEX, require_all_shards
from bandscope_dagster.models.inventory import HubSource, Model, UnlistedFiles
from bandscope_dagster.models.pins import Pin
from bandscope_dagster.models.store import describe, how_to_add

LISTING_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class StatedFile:
    """Size and digest of a repository's file, from the hub's metadata."""

    bytes: int
    sha256: str | None  # full, hexadecimal; None for a file that is not in Git LFS
    blob_id: str | None  # git's SHA-1 of the content; None for a file in Git LFS


def download(model: Model, source: HubSource, name: str, download_folder: Path) -> Path:
    """Download one file of a model's repository at its revision into ``download_folder``; returns its path.

    The content is not verified. A file that was downloaded there before is not downloaded again.

    Raises:
        ModelFileError: the download failed.
        OSError: the file cannot be written to the disk.
    """
    with _explain_hub_errors(model, source, name):
        import huggingface_hub as hub

        # This request fails at once without a network; the download would retry for 30 s.
        hub.get_hf_file_metadata(hub.hf_hub_url(source.repository, name, revision=source.revision))
        return Path(
            hub.hf_hub_download(source.repository, name, revision=source.revision, local_dir=download_folder)
        )


def pins_of_revision(
    model: Model, unlisted: UnlistedFiles, source: HubSource, download_folder: Path
) -> dict[str, Pin]:
    """Pins of a model's unlisted files, from the hub's metadata at the pinned revision.

    For a file in Git LFS, the metadata has its SHA-256. For any other file, it has only git's SHA-1 of the content. We
    download it into ``download_folder``, compare git's SHA-1, and pin its SHA-256.

    Raises:
        ModelFileError: the hub does not answer, or answers with another revision; its data differ from the inventory,
            or from its own metadata; or its model is incomplete.
    """
    where = _where(source)
    stated = _stated_files(model, source)
    for file in model.files:
        hubs = stated.get(file.name)
        if hubs and hubs.sha256 and (hubs.bytes, hubs.sha256) != (file.bytes, file.sha256):
            raise ModelFileError(
                f"{file.name} of {where} differs from the inventory: expected {describe(file)}, the hub states "
                f"{hubs.bytes} bytes with SHA-256 {hubs.sha256}. Nothing was downloaded."
            )
    listed = {file.name for file in model.files}
    wanted = {name: file for name, file in stated.items() if unlisted.wants(name) and name not in listed}
    if unmet := unlisted.unmet(wanted):
        raise ModelFileError(f"Model {model.name} in {where} is incomplete: it has no {', '.join(unmet)}.")
    pins = {
        name: Pin(
            file.bytes,
            file.sha256 or _checked_blob(model, source, name, file, download_folder),
            source.revision,
        )
        for name, file in wanted.items()
    }
    index = download(model, source, INDEX, download_folder) if INDEX in pins else None
    require_all_shards({*listed, *pins}, index, where)
    return pins


def _stated_files(model: Model, source: HubSource) -> Mapping[str, StatedFile]:
    """The repository's files by name, without those whose size the hub does not state."""
    with _explain_hub_errors(model, source, "The list of files"):
        from huggingface_hub import HfApi

        info = HfApi().model_info(
            source.repository, revision=source.revision, files_metadata=True, timeout=LISTING_TIMEOUT_S
        )
    if info.sha != source.revision:
        raise ModelFileError(
            f"The hub was asked for the files of {_where(source)} and answered with revision {info.sha}, which is not "
            f"the pinned one. If HF_ENDPOINT names a mirror, use another."
        )
    return {
        file.rfilename: StatedFile(
            file.lfs.size if file.lfs else file.size,
            file.lfs.sha256 if file.lfs else None,
            None if file.lfs else file.blob_id,
        )
        for file in info.siblings or ()
        if file.size is not None
    }


def _checked_blob(
    model: Model, source: HubSource, name: str, stated: StatedFile, download_folder: Path
) -> str:
    """Download a file and compare it with git's SHA-1 of its content; returns its SHA-256."""
    content = download(model, source, name, download_folder).read_bytes()
    # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects#_object_storage
    blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if (len(content), blob_id) != (stated.bytes, stated.blob_id):
        raise ModelFileError(
            f"{_where(source)} sent a {name} that differs from its metadata: expected {stated.bytes} bytes with git's "
            f"SHA-1 {stated.blob_id}, found {len(content)} bytes with {blob_id}. Pull again, or copy the files from a "
            f"machine that has them: {how_to_add(model)}."
        )
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _explain_hub_errors(model: Model, source: HubSource, what: str) -> Generator[None]:
    """Turn every error of the hub or the network into a ModelFileError that says what to do."""
    import huggingface_hub as hub

    failed = f"{what} of model {model.name} cannot be downloaded from {_where(source)}"
    if hub.is_offline_mode():
        raise ModelFileError(
            f"{failed}: HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set. Unset it, or copy the file from a machine "
            f"that has it: {how_to_add(model)}."
        )
    try:
        yield
    except Exception as error:
        # The errors of the library, its HTTP client and its Xet client have no common base class. An error with an
        # errno is the disk's: it is full or not writable.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        cause = next(iter(str(error).splitlines()), "").rstrip(". ")
        raise ModelFileError(
            f"{failed}: {type(error).__name__}: {cause}. Pull again when the network is back, or copy the file "
            f"from a machine that has it: {how_to_add(model)}."
        ) from error


def _where(source: HubSource) -> str:
    return f"{source.repository} at revision {source.revision}"
