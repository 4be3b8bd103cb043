"""Keys, region and server of an S3 store are found as the AWS tools find them, or a sentence says why not."""

import hashlib
import json
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
from botocore.credentials import SSOProvider
from faulty_proxy import FaultyProxy
from recording_server import RecordingServer, Request, recording_server
from s3_server import S3Place, S3Server

from bandscope_dagster.storage.objects import retries
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.probe import (
    StoreNotWritable,
    require_conditional_writes,
    require_writable,
)
from bandscope_dagster.storage.objects.protocol import ObjectStore, S3Options

NOWHERE = "http://127.0.0.1:9"  # nothing listens there
EMPTY_LISTING = b"<ListBucketResult></ListBucketResult>"
SOON = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and no variable of AWS; the machine has no role."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", NOWHERE)
    (tmp_path / ".aws").mkdir()
    return tmp_path


@pytest.fixture
def place(s3_server: S3Server) -> S3Place:
    """A store with one upload whose name obstore refuses, so that botocore lists it."""
    place = s3_server.place()
    prefix = place.url.rpartition("/")[2]
    s3_server.client().put_object(Bucket=s3_server.bucket, Key=f"{prefix}/uploads/a\nb.wav", Body=b"hostile")
    return place


FRAME = pl.DataFrame({"n": [1, 2]})


def use(store: ObjectStore) -> tuple[bytes, list[str], bool]:
    """Write and read by obstore, list by botocore, and read by polars; what each of the last three saw."""
    with store.create("t/a.parquet") as pending:
        FRAME.write_parquet(pending.file)
    return (
        store.read("t/a.parquet")[:4],
        [found.key for found in store.list("uploads", any_name=True)],
        pl.scan_parquet(store.uri("t/a.parquet"), **store.polars_access()).collect().equals(FRAME),
    )


SEEN = (b"PAR1", ["uploads/a\nb.wav"], True)


def key_file(place: S3Place, profile: str) -> str:
    return (
        f"[{profile}]\naws_access_key_id = {place.access_key_id}\n"
        f"aws_secret_access_key = {place.secret_access_key}\n"
    )


def test_the_default_profile(place: S3Place, home: Path) -> None:
    (home / ".aws" / "credentials").write_text(key_file(place, "default"))
    assert use(open_store(place.url, S3Options(place.endpoint))) == SEEN


def test_a_named_profile_with_its_server_and_region(
    place: S3Place, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".aws" / "credentials").write_text(key_file(place, "studio"))
    config = f"[profile studio]\nregion = {place.region}\nendpoint_url = {place.endpoint}\n"
    (home / ".aws" / "config").write_text(config)
    monkeypatch.setenv("AWS_PROFILE", "studio")
    assert use(open_store(place.url)) == SEEN


def test_a_process_that_prints_keys(place: S3Place, home: Path) -> None:
    keys = {"AccessKeyId": place.access_key_id, "SecretAccessKey": place.secret_access_key}
    (home / "keys.json").write_text(json.dumps(keys | {"Version": 1}))
    (home / ".aws" / "config").write_text(f"[default]\ncredential_process = cat {home}/keys.json\n")
    assert use(open_store(place.url, S3Options(place.endpoint))) == SEEN


def test_the_settings_come_before_the_variables_and_these_before_the_files(
    place: S3Place, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "belongs to the variables, and not to the settings")
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
    monkeypatch.setenv("AWS_REGION", "mars-1")
    assert use(place.open()) == SEEN
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    (home / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = x\naws_secret_access_key = y\n"
    )
    assert use(open_store(place.url)) == SEEN


@pytest.fixture
def amazon() -> Iterator[RecordingServer]:
    """The services of Amazon that give keys, and S3 with an empty bucket."""
    key = {"AccessKeyId": "temporary", "SecretAccessKey": "s", "Expiration": SOON}
    xml = (
        f"<Credentials><AccessKeyId>temporary</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
        f"<SessionToken>the-token</SessionToken><Expiration>{SOON}</Expiration></Credentials>"
    )
    in_ms = int((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000)
    sso = {
        "accessKeyId": "temporary",
        "secretAccessKey": "s",
        "sessionToken": "the-token",
        "expiration": in_ms,
    }

    def answer(request: Request) -> tuple[int, bytes]:
        path = request.path
        if path.startswith("/federation"):
            return 200, json.dumps({"roleCredentials": sso}).encode()
        if path == "/container":
            return 200, json.dumps(key | {"Token": "the-token"}).encode()
        if path == "/latest/api/token":
            return 200, b"imds"
        if path == "/latest/meta-data/iam/security-credentials/":
            return 200, b"role-of-the-machine"
        if path.startswith("/latest/meta-data/iam/security-credentials/"):
            return 200, json.dumps(key | {"Token": "the-token", "Code": "Success"}).encode()
        if request.method == "POST":  # STS, by its form
            results = "".join(
                f"<{name}Result>{xml}</{name}Result>" for name in ("AssumeRole", "AssumeRoleWithWebIdentity")
            )
            return 200, f"<Response>{results}</Response>".encode()
        return (404, b"") if request.method == "HEAD" else (200, EMPTY_LISTING)

    with recording_server(answer) as server:
        yield server


def role(home: Path, amazon: RecordingServer) -> dict[str, str]:
    (home / ".aws" / "credentials").write_text("[base]\naws_access_key_id = k\naws_secret_access_key = s\n")
    (home / ".aws" / "config").write_text(
        "[default]\nrole_arn = arn:aws:iam::123456789012:role/listener\nsource_profile = base\n"
    )
    return {"AWS_ENDPOINT_URL_STS": amazon.url}


def web_identity(home: Path, amazon: RecordingServer) -> dict[str, str]:
    (home / "token").write_text("a.b.c")
    return {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/listener",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(home / "token"),
        "AWS_ENDPOINT_URL_STS": amazon.url,
    }


def single_sign_on(home: Path, amazon: RecordingServer) -> dict[str, str]:
    (home / ".aws" / "config").write_text(
        "[default]\nsso_start_url = https://studio.awsapps.com/start\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = listener\n"
    )
    cache = home / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    name = hashlib.sha1(b"https://studio.awsapps.com/start").hexdigest()
    token = {"accessToken": "t", "expiresAt": SOON, "startUrl": "https://studio.awsapps.com/start"}
    (cache / f"{name}.json").write_text(json.dumps(token))
    return {"AWS_ENDPOINT_URL_SSO": amazon.url}


def container(home: Path, amazon: RecordingServer) -> dict[str, str]:
    return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{amazon.url}/container"}


def machine(home: Path, amazon: RecordingServer) -> dict[str, str]:
    return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": amazon.url}


@pytest.mark.parametrize("way", [role, web_identity, single_sign_on, container, machine])
def test_keys_that_expire_come_with_their_token(
    way: Callable[[Path, RecordingServer], dict[str, str]],
    amazon: RecordingServer,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in way(home, amazon).items():
        monkeypatch.setenv(name, value)
    # botocore looks up the home once, when it is imported.
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(home / ".aws" / "sso" / "cache"))
    store = open_store("s3://bucket/prefix", S3Options(amazon.url))
    assert list(store.list()) == []
    with pytest.raises(pl.exceptions.ComputeError, match="empty"):
        pl.scan_parquet("s3://bucket/t/*.parquet", **store.polars_access()).collect()
    signed = [each for each in amazon.requests if each.path.startswith("/bucket")]
    assert len(signed) >= 3  # listing, question for an object that cannot exist, polars
    for request in signed:
        assert "Credential=temporary/" in request.headers["authorization"]
        assert request.headers["x-amz-security-token"] == "the-token"


def test_keys_are_renewed_before_they_expire(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 0

    def answer(request: Request) -> tuple[int, bytes]:
        nonlocal number
        if request.path != "/container":
            return (404, b"") if request.method == "HEAD" else (200, EMPTY_LISTING)
        number += 1
        expires = (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"AccessKeyId": f"key-{number}", "SecretAccessKey": "s", "Token": "t", "Expiration": expires}
        return 200, json.dumps(keys).encode()

    with recording_server(answer) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/container")
        store = open_store("s3://bucket", S3Options(server.url))
        for _ in range(2):
            with pytest.raises(pl.exceptions.ComputeError):
                pl.scan_parquet("s3://bucket/t/*.parquet", **store.polars_access()).collect()
        used = {
            each.headers["authorization"].partition("Credential=")[2].partition("/")[0]
            for each in server.requests
            if each.path.startswith("/bucket")
        }
        assert len(used) >= 2, "old keys were used again"


def test_without_keys_a_sentence_says_where_they_were_looked_for(place: S3Place) -> None:
    store = open_store(place.url, S3Options(place.endpoint))
    with pytest.raises(PermissionError, match="no S3 credentials were found") as caught:
        list(store.list())
    for name in (
        "BANDSCOPE_S3_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "~/.aws/credentials",
        "SSO",
        "web identity",
        "role",
    ):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("files", "variables", "options", "words"),
    [
        ({}, {"AWS_PROFILE": "nosuch"}, {}, "nosuch"),
        ({"config": "[default\nbroken"}, {}, {}, "config"),
        ({"credentials": "[default]\naws_access_key_id = k\n"}, {}, {}, "aws_secret_access_key"),
        ({"config": "[default]\ncredential_process = false\n"}, {}, {}, "custom-process"),
        ({"config": "[default]\ncredential_process = echo text\n"}, {}, {}, "cannot be used"),
        ({"config": "[default]\ncredential_process = no-such-program\n"}, {}, {}, "cannot be used"),
        (
            {},
            {
                "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/a",
                "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such/file",
            },
            {},
            "/no/such/file",
        ),
        ({}, {"AWS_ACCESS_KEY_ID": "k"}, {}, "AWS_SECRET_ACCESS_KEY is not"),
        ({}, {}, {"secret_access_key": "s"}, "BANDSCOPE_S3_ACCESS_KEY_ID is not"),
    ],
    ids=[
        *("profile", "file", "half-profile", "process", "process-text", "no-process", "no-token-file"),
        *("half-variables", "half-settings"),
    ],
)
def test_keys_that_cannot_be_used_are_a_sentence(
    files: dict[str, str],
    variables: dict[str, str],
    options: dict[str, str],
    words: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in files.items():
        (home / ".aws" / name).write_text(text)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://bucket/prefix", S3Options(NOWHERE, region="us-east-1", **options))
    for use_it in (lambda: store.read("songs/a.parquet"), lambda: store.head("songs/a.parquet")):
        with pytest.raises(PermissionError, match=words):
            use_it()


def test_half_a_key_in_the_files_does_not_matter_where_the_settings_have_one(
    place: S3Place, home: Path
) -> None:
    (home / ".aws" / "credentials").write_text("[default]\naws_access_key_id = k\n")
    (home / ".aws" / "config").write_text(f"[default]\nendpoint_url = {place.endpoint}\n")
    assert (
        use(
            open_store(place.url, S3Options(None, place.access_key_id, place.secret_access_key, place.region))
        )
        == SEEN
    )


@pytest.mark.parametrize(
    "url", ["localhost:9000", "localhost", "http://localhost:99999", "http://localhost:abc", "x://y"]
)
def test_a_server_that_is_no_url_is_a_sentence_also_without_keys(url: str) -> None:
    for keys in (("k", "s"), (None, None)):
        store = open_store("s3://bucket", S3Options(url, *keys))
        with pytest.raises(OSError, match=r"must begin with http:// or https://.*BANDSCOPE_S3_ENDPOINT"):
            list(store.list())


def test_the_bucket_is_part_of_the_host_where_the_setting_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request) -> tuple[int, bytes]:
        if request.method == "HEAD":
            return 404, b""
        return (
            200,
            b"<ListBucketResult><Contents><Key>uploads/a&#10;b.wav</Key><Size>1</Size><ETag>e</ETag>"
            + (b"<LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"),
        )

    with recording_server(answer) as proxy:  # only the proxy knows the name s3.example
        monkeypatch.setenv("http_proxy", proxy.url)
        options = S3Options("http://s3.example", "k", "s", "us-east-1", virtual_host=True)
        store = open_store("s3://songs", options)
        # obstore refuses the name, and botocore lists it.
        assert [found.key for found in store.list(any_name=True)] == ["uploads/a\nb.wav"]
        with pytest.raises((OSError, pl.exceptions.PolarsError)):
            pl.scan_parquet("s3://songs/t/a.parquet", **store.polars_access()).collect()
    assert {request.headers["user-agent"].partition("/")[0] for request in proxy.requests} >= {"Botocore"}
    assert len(proxy.requests) >= 3
    for request in proxy.requests:
        assert request.headers["host"] == "songs.s3.example"
        assert "/songs/" not in request.path


def test_a_public_bucket_needs_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with recording_server(lambda _: (200, EMPTY_LISTING)) as server:
        store = open_store("s3://songs", S3Options(server.url))
        with pytest.raises(OSError, match="not as an S3 server"):  # it has an object of any name
            list(store.list())
        with pytest.raises(pl.exceptions.ComputeError):
            pl.scan_parquet("s3://songs/t/*.parquet", **store.polars_access()).collect()
    assert not [each for each in server.requests if "authorization" in each.headers]


PAGE = b"<html><body>Welcome</body></html>"


BROKEN_PAGE = b"<!DOCTYPE html><html><body><br>Welcome</body></html>"  # as XML


def test_a_page_that_is_no_xml_is_not_asked_for_again() -> None:
    with recording_server(lambda _: (200, BROKEN_PAGE)) as server:
        store = open_store("s3://bucket", S3Options(server.url, "k", "s"))
        with pytest.raises(OSError, match="not as an S3 server") as caught:
            list(store.list())
        assert "Welcome" not in str(caught.value) and len(server.requests) == 1
        with pytest.raises(OSError, match="not as an S3 server"):
            store.open("a").read(4)
        assert len(server.requests) == 3, "a HEAD, and a GET of a range"


def test_what_cannot_be_read_either_is_not_called_readable(s3_server: S3Server) -> None:
    """Without keys, and on a web server. A key that may only read gets the sentence about commands that only read."""

    def error_of(store: ObjectStore) -> str:
        with pytest.raises(StoreNotWritable) as caught:
            require_writable(store)
        return str(caught.value)

    place = s3_server.place()
    without_keys = error_of(open_store(place.url, S3Options(place.endpoint)))
    assert f"the store {place.url} cannot be written (no S3 credentials were found" in without_keys
    with recording_server(lambda _: (200, PAGE)) as server:
        no_s3 = error_of(open_store("s3://bucket", S3Options(server.url, "k", "s")))
    for told in (without_keys, no_s3):
        assert "only read" not in told and "probe" not in told
    reader = open_store(place.url, S3Options(place.endpoint, "test-reader", place.secret_access_key))
    assert "Commands that only read, such as `bandscope status`, work" in error_of(reader)


def test_a_server_that_ignores_or_refuses_the_condition_of_a_write_is_found(
    store: ObjectStore, s3_server: S3Server, faulty_proxy: FaultyProxy
) -> None:
    require_conditional_writes(store)
    assert list(store.list()) == [], "the probe leaves nothing"
    behind = s3_server.place(faulty_proxy.endpoint).open()
    require_conditional_writes(behind)
    faulty_proxy.fail("/probe", "unconditional", method="PUT")
    with pytest.raises(StoreNotWritable, match="it replaces an object"):
        require_conditional_writes(behind)
    faulty_proxy.heal()
    faulty_proxy.fail("/probe", "501", method="PUT")
    with pytest.raises(
        StoreNotWritable, match=r"does not support the condition If-None-Match .* newer version"
    ):
        require_conditional_writes(behind)
    faulty_proxy.heal()
    assert list(behind.list()) == []


@pytest.mark.parametrize("status", [200, 301, 403, 404, 501])
def test_a_server_that_is_not_s3_is_told_and_its_page_is_not(status: int) -> None:
    words = "region" if status == 301 else "not (as )?an S3 server"
    with recording_server(lambda _: (status, PAGE)) as server:
        store = open_store("s3://bucket", S3Options(server.url, "k", "s"))
        with pytest.raises(OSError, match=words) as caught:
            list(store.list())
    assert server.url in str(caught.value)
    assert "Welcome" not in str(caught.value) and "html" not in str(caught.value)
    assert not isinstance(caught.value, FileNotFoundError), "a wrong server is not an empty store"


ERROR = "<Error><Code>{}</Code><Message>Text of the server.</Message></Error>"


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (404, "NoSuchBucket", FileNotFoundError, "BANDSCOPE_STORAGE"),
        (403, "InvalidAccessKeyId", PermissionError, "does not know this access key"),
        (403, "SignatureDoesNotMatch", PermissionError, "secret key does not belong"),
        (403, "AccessDenied", PermissionError, "may not write"),
        (400, "ExpiredToken", OSError, "has expired"),
        (403, "RequestTimeTooSkewed", PermissionError, "clock"),
        (400, "AuthorizationHeaderMalformed", OSError, "another region"),
        (507, "QuotaExceeded", OSError, "507 QuotaExceeded: Text of the server"),
    ],
)
def test_errors_of_the_server_say_what_to_do(
    status: int, code: str, kind: type[OSError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "RETRY_FOR_S", 0)
    with recording_server(lambda _: (status, ERROR.format(code).encode())) as server:
        store = open_store("s3://bucket", S3Options(server.url, "k", "s"))
        with pytest.raises(kind, match=words) as caught, store.create("t/a") as pending:
            pending.write(b"1")
    assert type(caught.value) is kind
    assert f"({server.url})" in str(caught.value)
    assert "<" not in str(caught.value)


def with_certificate(folder: Path) -> Callable[[ThreadingHTTPServer], None]:
    """Puts TLS with an untrusted certificate around a server."""
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    paths = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(
        [*make.split(), "-addext", "subjectAltName=IP:127.0.0.1", *paths], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")

    def secure(server: ThreadingHTTPServer) -> None:
        server.socket = context.wrap_socket(server.socket, server_side=True)

    return secure


def test_no_answer_is_explained_by_its_likely_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "RETRY_FOR_S", 0)

    def error_of(endpoint: str) -> str:
        with pytest.raises(OSError, match="uploads in the store s3://bucket") as caught:
            list(open_store("s3://bucket", S3Options(endpoint, "k", "s")).list("uploads"))
        return str(caught.value)

    assert "nothing listens on port 9 of 127.0.0.1" in error_of(NOWHERE)
    assert "the name no-such-host.invalid is not known" in error_of(
        "http://user:password@no-such-host.invalid"
    )
    assert "password" not in error_of("http://user:password@no-such-host.invalid")
    with recording_server(lambda _: (200, EMPTY_LISTING)) as plain:
        assert "use http://" in error_of(plain.url.replace("http:", "https:"))
    with recording_server(lambda _: (200, EMPTY_LISTING), with_certificate(tmp_path)) as secure:
        assert "use https://" in error_of(secure.url)
        assert "certificate is not trusted: self-signed" in error_of(secure.url.replace("http:", "https:"))
    monkeypatch.setenv("http_proxy", NOWHERE)
    assert "through the proxy of HTTP_PROXY" in error_of("http://s3.example")
