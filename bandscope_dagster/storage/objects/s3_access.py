"""The server, region and keys of an S3 store: from the settings, else found as the AWS tools find them."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bandscope_dagster.storage.objects.protocol import S3Options

DEFAULT_REGION: Final = "us-east-1"  # the default of the AWS tools
_ASK_AGAIN: Final = timedelta(minutes=5)  # botocore renews keys at least ten minutes before they expire
_LOOKED_IN: Final = (
    "no S3 credentials were found. Set BANDSCOPE_S3_ACCESS_KEY_ID and BANDSCOPE_S3_SECRET_ACCESS_KEY, or "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE. Also looked in ~/.aws/credentials and "
    "~/.aws/config (keys, SSO, roles, processes), for a web identity, and for a role of this container or machine"
)


class WrongServer(OSError):
    """The setting for the URL of the server is no URL; the message says which."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys that sign a request. ``token`` belongs to keys that expire."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class S3Access:
    """Access to the bucket ``bucket``. Nothing is looked for before it is needed."""

    def __init__(self, bucket: str, options: S3Options) -> None:
        self._bucket = bucket
        self._options = options

    @cached_property
    def server(self) -> str | None:
        """The URL of the server as it is configured, without a trailing slash; None for Amazon S3."""
        environment = os.environ.get
        found = (
            self._options.endpoint
            or environment("AWS_ENDPOINT_URL_S3")
            or environment("AWS_ENDPOINT_URL")
            or self._endpoint_of_profile()
        )
        return _checked(found) if found else None

    @cached_property
    def endpoint(self) -> str | None:
        """The URL to which requests go: ``server``, with the bucket in front of its host in the virtual-host style."""
        if self.server is None or not self._options.virtual_host:
            return self.server
        scheme, _, host = self.server.partition("://")
        return f"{scheme}://{self._bucket}.{host}"

    @property
    def virtual_host(self) -> bool:
        """True if the bucket is part of the host's name, and not of the path."""
        return self._options.virtual_host

    @cached_property
    def region(self) -> str:
        """The region that is part of a signature."""
        environment = os.environ.get
        found = self._options.region or environment("AWS_REGION") or environment("AWS_DEFAULT_REGION")
        if not found and _has_config_file():
            found = self._session.get_config_variable("region")
        return found or DEFAULT_REGION

    @property
    def plain_http(self) -> bool:
        """True if the server is reached without TLS."""
        return self.server is not None and self.server.startswith("http://")

    @property
    def name(self) -> str:
        """The server for a message. Its URL may contain a password, which is left out."""
        if self.server is None:
            return f"Amazon S3 (region {self.region})"
        parts = urlsplit(self.server)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def anonymous(self) -> bool:
        """True if requests are not signed, for public buckets: ``AWS_SKIP_SIGNATURE``."""
        return os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes")

    def keys(self) -> Keys:
        """The keys of this moment; those that expire are renewed in time.

        Raises:
            PermissionError: there are none, or the place where they are cannot be read. The message says what to do.
        """
        return self._find_keys()

    def for_obstore(self) -> Any:
        """The keys as obstore's credential provider returns them."""
        keys = self.keys()
        return {
            "access_key_id": keys.access_key_id,
            "secret_access_key": keys.secret_access_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + _ASK_AGAIN,
        }

    def for_polars(self) -> tuple[dict[str, str], int | None]:
        """The keys as polars' credential provider returns them."""
        keys = self.keys()
        named = {
            "aws_access_key_id": keys.access_key_id,
            "aws_secret_access_key": keys.secret_access_key,
            "aws_session_token": keys.token,
        }
        expires = datetime.now(UTC) + _ASK_AGAIN
        return {name: value for name, value in named.items() if value}, int(expires.timestamp())

    @cached_property
    def _find_keys(self) -> Callable[[], Keys]:
        options, environment = self._options, os.environ.get
        settings = options.access_key_id, options.secret_access_key
        if any(settings):
            return lambda: _complete(
                *settings, None, "BANDSCOPE_S3_ACCESS_KEY_ID", "BANDSCOPE_S3_SECRET_ACCESS_KEY"
            )
        variables = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
        values = environment(variables[0]), environment(variables[1])
        if any(values):
            return lambda: _complete(*values, environment("AWS_SESSION_TOKEN"), *variables)
        return self._keys_of_botocore

    @cached_property
    def _session(self) -> Any:
        import botocore.session

        session = botocore.session.get_session()
        with _explained("the settings in ~/.aws"):
            session.get_scoped_config()
        return session

    @cached_property
    def _credentials(self) -> Any:
        self._session.set_config_variable(
            "region", self.region
        )  # a service that gives a role's keys needs one
        return self._session.get_credentials()

    def _keys_of_botocore(self) -> Keys:
        with _explained("the S3 credentials in ~/.aws, or of a role,"):
            credentials = self._credentials
            found = None if credentials is None else credentials.get_frozen_credentials()
        if found is None:
            raise PermissionError(_LOOKED_IN)
        return Keys(found.access_key, found.secret_key, found.token or None)

    def _endpoint_of_profile(self) -> str | None:
        """``endpoint_url`` of the profile, or of its services, in ~/.aws/config."""
        if not _has_config_file():
            return None
        with _explained("the settings in ~/.aws"):
            client = self._session.create_client(
                "s3", region_name=self.region, aws_access_key_id="", aws_secret_access_key=""
            )
        found = client.meta.endpoint_url
        # Without a setting, botocore names Amazon's own server.
        return (
            None
            if (urlsplit(found).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
            else found
        )


@contextmanager
def _explained(what: str) -> Generator[None]:
    """Any error of botocore becomes a PermissionError with a sentence, also of the programs and files that it uses."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except PermissionError:  # explained already, or names the file
        raise
    except (BotoCoreError, ClientError, OSError, ValueError) as error:
        raise PermissionError(f"{what} cannot be used: {error}") from None


def _complete(
    key: str | None, secret: str | None, token: str | None, key_name: str, secret_name: str
) -> Keys:
    """Both halves of a key, or a sentence that names the missing half."""
    if key and secret:
        return Keys(key, secret, token or None)
    found, missing = (key_name, secret_name) if key else (secret_name, key_name)
    raise PermissionError(f"{found} is set and {missing} is not; S3 needs both")


def _checked(server: str) -> str:
    """The URL without a slash at its end, or a sentence that says what is wrong with it."""
    try:
        parts = urlsplit(server)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # the port is no number, or too large
        valid = False
    if not valid:
        raise WrongServer(
            "the URL of the S3 server must begin with http:// or https:// and have a host, as in"
            " http://localhost:9000; check BANDSCOPE_S3_ENDPOINT, or AWS_ENDPOINT_URL"
        )
    return server.rstrip("/")


def _has_config_file() -> bool:
    path = os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")
    return Path(path).expanduser().is_file()
