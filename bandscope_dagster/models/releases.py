"""Download of release assets from GitHub."""

import time
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

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
    cause: Exception | None = None
    with (
        arrived.open("wb") as target,
        tqdm(total=size, unit="B", unit_scale=True, desc=name, disable=None) as shown,
    ):
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
            try:
                response = urlopen(
                    Request(url, headers={"Range": f"bytes={target.tell()}-"}), timeout=TIMEOUT_S
                )
            except HTTPError as error:
                cause = error
                if error.code < 500 and error.code not in (408, 429):
                    break
                continue
            except (OSError, HTTPException) as error:
                cause = error
                continue
            with response:
                if response.status != 206:  # the server sends the whole file
                    target.seek(0)
                    target.truncate()
                    shown.reset()
                while True:
                    try:
                        block = response.read(min(BLOCK, size + 1 - target.tell()))
                    except (OSError, HTTPException) as error:
                        cause = error
                        break
                    if not block:
                        break
                    target.write(block)
                    shown.update(len(block))
            if target.tell() >= size:
                return arrived
            cause = cause or ModelFileError(f"the connection ended after {target.tell()} of {size} bytes")
    raise ModelFileError(
        f"{name} of model {model.name} cannot be downloaded from {url}: {cause}. Try again later, or copy the file "
        f"from a machine that has it: {how_to_add(model)}."
    ) from cause
