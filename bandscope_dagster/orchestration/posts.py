"""Posts JSON to the URLs of the settings: alerts, and results of songs."""

import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from typing import IO

from bandscope_dagster.errors import SettingsError


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: urllib would follow one with a GET request and without the body, and report success."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow none."""


_OPENER = urllib.request.build_opener(_NoRedirects)


def check_url(url: str, variable: str) -> None:
    """Accept only web addresses: urllib would also open file:// and ftp://.

    Raises:
        SettingsError: the URL of ``variable`` is none. Its text may be a secret, and is not in the message.
    """
    if not url.startswith(("https://", "http://")):
        raise SettingsError(
            f"{variable} must be a URL that begins with https:// or http://; unset it for no posts"
        )


def post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> None:
    """Post a JSON document.

    Raises:
        OSError: the server could not be reached, or did not answer with success. The message has no part of the URL.
    """
    sent = {"Content-Type": "application/json", "User-Agent": "bandscope"} | dict(headers)
    try:
        with _OPENER.open(urllib.request.Request(url, body, sent, method="POST"), timeout=timeout_s):
            pass
    except (HTTPException, ValueError) as error:  # an answer that is not HTTP, or a URL without a host
        raise OSError(f"no valid answer ({type(error).__name__})") from None
