"""Download of release assets from GitHub."""

from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import Model, ReleaseSource
from bandscope_dagster.models.store import how_to_add

GITHUB: Final = "https://github.com"
TIMEOUT_S: Final = 60.0  # without a byte
ATTEMPTS: Final = 5
PAUSE_S: Final = 2.0  # before the second attempt; doubled for each further one
BLOCK: Final = 2**20  # bytes


def download_asset(model: Model, source: ReleaseSource, name: str, size: int, download_folder: Path) -> Path:
    """Download the asset ``name`` of ``size`` bytes of a release into ``download_folder``; returns its path.

    The content is not verified. A download that breaks off is continued where it ended. More than ``size`` bytes are
    never written.

    Raises:
        ModelFileError: the release has no such asset, or the download failed several times.
        OSError: the file cannot be written to the disk.
    """
    from tqdm import tqdm

    url = f"{GITHUB}/{source.repository}/releases/download/{source.release}/{name}"
    arrived = download_folder / name
    retries = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(PAUSE_S),
        retry=retry_if_exception(lambda error: isinstance(error, _Broken) and error.may_pass),
        reraise=True,
    )
    with (
        arrived.open("wb") as target,
        tqdm(total=size, unit="B", unit_scale=True, desc=name, disable=None) as shown,
    ):
        try:
            retries(_fetch_rest, url, target, size, shown)
        except _Broken as error:
            raise ModelFileError(
                f"{name} of model {model.name} cannot be downloaded from {url}: {error}. Try again later, or copy the "
                f"file from a machine that has it: {how_to_add(model)}."
            ) from error
    return arrived


class _Broken(Exception):
    """The server or the connection failed, not the disk."""

    def __init__(self, problem: object, *, may_pass: bool = True) -> None:
        super().__init__(str(problem))
        self.may_pass = may_pass


def _fetch_rest(url: str, target: BinaryIO, size: int, shown: Any) -> None:
    """Append what ``target`` lacks of ``size`` bytes; ``shown`` is the bar."""
    try:
        response = urlopen(Request(url, headers={"Range": f"bytes={target.tell()}-"}), timeout=TIMEOUT_S)
    except HTTPError as error:
        raise _Broken(error, may_pass=error.code >= 500 or error.code in (408, 429)) from error
    except (OSError, HTTPException) as error:
        raise _Broken(error) from error
    with response:
        if response.status != 206:  # the server sends the whole file
            target.seek(0)
            target.truncate()
            shown.reset()
        while True:
            try:
                block = response.read(min(BLOCK, size + 1 - target.tell()))
            except (OSError, HTTPException) as error:
                raise _Broken(error) from error
            if not block:
                break
            target.write(block)
            shown.update(len(block))
    if target.tell() < size:
        raise _Broken(f"the connection ended after {target.tell()} of {size} bytes")
