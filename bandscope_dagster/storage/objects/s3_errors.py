"""The errors of an S3 server in plain words: the server, the likely cause, and the setting to look at."""

import re
import socket
import ssl
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from obstore.exceptions import (
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from bandscope_dagster.storage.objects.protocol import ObjectChanged
from bandscope_dagster.storage.objects.s3_access import S3Access, WrongServer

_PROBE_TIMEOUT_S: Final = 3.0
_ACTIONS: Final = {
    "GET": "read or list",
    "HEAD": "read",
    "PUT": "write",
    "POST": "write or delete",
    "DELETE": "delete",
}
_WRONG_KEY: Final = (
    "the server does not know this access key; check BANDSCOPE_S3_ACCESS_KEY_ID or the AWS settings"
)
_OTHER_REGION: Final = "the bucket is in another region; set BANDSCOPE_S3_REGION"

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_CAUSES: Final = {
    "NoSuchBucket": "there is no bucket of this name; check BANDSCOPE_STORAGE, or create the bucket",
    "InvalidBucketName": "this is not a valid name of a bucket; check BANDSCOPE_STORAGE",
    "InvalidAccessKeyId": _WRONG_KEY,
    "SignatureDoesNotMatch": (
        "the secret key does not belong to this access key; check BANDSCOPE_S3_SECRET_ACCESS_KEY or the AWS settings"
    ),
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN, or log in again",
    "ExpiredToken": "the session token has expired; log in again",
    "RequestTimeTooSkewed": "the clock of this machine differs from the server's by more than 15 minutes",
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "PermanentRedirect": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
}


# What object_store says of an answer that S3 cannot give, with any status: a page of a web server, for example.
_NOT_AN_ANSWER_OF_S3: Final = re.compile(
    r"Header missing|[Ii]nvalid \w+ response|metadata from headers|non-partial response"
)


class NotS3(BaseError):
    """The server answers, but not as an S3 server."""


def is_transient(error: BaseException) -> bool:
    """True if the same request may succeed a little later."""
    if isinstance(error, GenericError):
        if "redirect without LOCATION" in str(error) or _NOT_AN_ANSWER_OF_S3.search(str(error)):
            return False
        status = _status(error)
        # Timeout; too many requests; all faults of a server but "not implemented".
        return status is None or status in (408, 429) or (status >= 500 and status != 501)
    return isinstance(error, ConnectionError)


def explain(error: BaseException, access: S3Access) -> tuple[type[OSError], str]:
    """The builtin class for an error of obstore, and a sentence without keys and without the server's whole answer."""
    if isinstance(error, PermissionError):  # already explained: no keys were found
        return PermissionError, str(error)
    if isinstance(error, WrongServer):
        return OSError, str(error)
    status = _status(error)
    if (isinstance(error, FileNotFoundError) or status == 404) and "<html" not in str(error).lower():
        kind: type[OSError] = FileNotFoundError
    elif isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or status in (401, 403):
        kind = PermissionError
    else:
        kind = ObjectChanged if isinstance(error, PreconditionError) else OSError
    return kind, f"{_cause(error, status, access)} ({access.name})"


def _cause(error: BaseException, status: int | None, access: S3Access) -> str:
    report = str(error)
    method = re.search(r"Error performing ([A-Z]+) ", report)
    action = _ACTIONS.get(method[1], "use") if method else "use"
    code, message = _answer(report)
    if code in _CAUSES:
        return _CAUSES[code]
    if code in ("AccessDenied", "AllAccessDisabled"):
        return f"this key may not {action} here: {message or code}"
    if code in ("NoSuchKey", "NotFound"):
        return "no such object"
    if code:
        return f"the server answered {status} {code}: {message}"
    if "redirect without LOCATION" in report:
        return _OTHER_REGION
    if isinstance(error, PreconditionError):
        return "the object was replaced meanwhile"
    if status in (400, 401, 403) and method and method[1] == "HEAD":  # an answer without a body
        return f"the server answered {status}: the key is wrong or has expired, or may not {action} here"
    if isinstance(error, FileNotFoundError) and method and method[1] == "HEAD":
        return "no such object"
    if status is not None and status not in (408, 429, 500, 502, 503, 504):
        return f"the server answered {status} without an error of S3: this is probably not an S3 server"
    if status is not None:
        return f"the server answered {status}"
    if isinstance(error, NotS3) or _NOT_AN_ANSWER_OF_S3.search(report):
        return "the server answers, but not as an S3 server; check BANDSCOPE_S3_ENDPOINT"
    if "HTTP error" in report or isinstance(error, ConnectionError):
        return _why_no_answer(access) or "the connection broke before the answer was complete"
    # The address of the request has the endpoint, which may contain a password.
    return re.sub(r"//[^/@\s]*@", "//", report.partition("\n")[0].partition("<?xml")[0]).strip(" -")


def _answer(report: str) -> tuple[str, str]:
    """The server's error code and message, or two empty texts."""
    code = re.search(r"<Code>([^<]*)</Code>", report)
    message = re.search(r"<Message>([^<]*)</Message>", report)
    return (code[1].strip() if code else "", message[1].strip() if message else "")


def _status(error: BaseException) -> int | None:
    """The HTTP status in the error's text, if any: obstore has no exceptions for failed listings and deletions."""
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else None


def _why_no_answer(access: S3Access) -> str:
    """The likely cause, found by connecting once more; empty if the server answers now.

    obstore only reports that a request could not be sent.
    """
    url = urlsplit(access.endpoint or f"https://s3.{access.region}.amazonaws.com")
    host, tls = url.hostname or "", url.scheme == "https"
    port = url.port or (443 if tls else 80)
    if url.scheme in getproxies() and not proxy_bypass(host):
        return f"no answer through the proxy of {url.scheme.upper()}_PROXY; check it, and NO_PROXY"
    try:
        with socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S) as connection:
            if tls:
                ssl.create_default_context().wrap_socket(connection, server_hostname=host).close()
                return ""
        return (
            "the server wants TLS: use https:// in BANDSCOPE_S3_ENDPOINT" if _speaks_tls(host, port) else ""
        )
    except socket.gaierror:
        return f"the name {host} is not known; check BANDSCOPE_S3_ENDPOINT and the network"
    except ssl.SSLCertVerificationError as error:
        return f"the server's certificate is not trusted: {error.verify_message}"
    except ssl.SSLError:
        return "the server does not speak TLS here; for a server without TLS, use http:// in BANDSCOPE_S3_ENDPOINT"
    except ConnectionRefusedError:
        return f"nothing listens on port {port} of {host}; is the server running?"
    except OSError as error:
        return f"no connection to port {port} of {host}: {error.strerror or error}"


def _speaks_tls(host: str, port: int) -> bool:
    """True if the server takes a TLS connection, with any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S) as connection:
            context.wrap_socket(connection, server_hostname=host).close()
    except OSError:
        return False
    return True
