"""The installation by uv with pip's settings: a company's own index behind a company's own certificate."""

import functools
import os
import ssl
import subprocess
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts.uv_settings import pip_settings, uv_variables

ROOT = Path(__file__).parents[2]
PACKAGE = "only-in-the-companys-index"
MODULE = PACKAGE.replace("-", "_")
PLATFORM = sysconfig.get_platform().replace("-", "_").replace(".", "_")  # linux_x86_64


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and prints nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def wheel(folder: Path, tag: str) -> str:
    """Make the package's wheel for a tag; returns its file name."""
    name = f"{MODULE}-1.0-{tag}.whl"
    info = f"{MODULE}-1.0.dist-info"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"{MODULE}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return name


@pytest.fixture
def index(tmp_path: Path) -> Iterator[dict[str, str]]:
    """pip's settings for an index with one package, on a server whose certificate no system knows."""
    folder = tmp_path / "index" / PACKAGE
    folder.mkdir(parents=True)
    link = wheel(folder, "py3-none-any")
    (folder / "index.html").write_text(f'<a href="{link}">{link}</a>')
    certificate, key = tmp_path / "company.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    extensions = "-addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    command = [*make.split(), *extensions.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = functools.partial(Quiet, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"index-url": f"https://localhost:{server.server_port}", "cert": str(certificate)}
        server.shutdown()


def install(target: Path, command: str, settings: Path | None) -> "subprocess.CompletedProcess[str]":
    """Install the package with uv after ``command``, in an environment with nothing but these settings of pip."""
    environment = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
    environment |= {"UV_HTTP_RETRIES": "0", "UV_CACHE_DIR": str(target / "cache")}
    environment |= {"PIP_CONFIG_FILE": str(settings or os.devnull)}
    uv = f"uv pip install --quiet --python {sys.executable} --target {target} {PACKAGE}"
    return subprocess.run(
        ["bash", "-c", f"set -e; {command}\n{uv}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_uv_installs_from_the_index_and_with_the_certificate_of_pips_settings(
    index: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in index.items()))
    settings = f'eval "$({sys.executable} scripts/uv_settings.py)"'

    done = install(tmp_path / "with", settings, config)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "with" / f"{MODULE}.py").exists()
    assert install(tmp_path / "without", "true", config).returncode != 0, "uv reads none of pip's settings"


def test_of_two_indexes_with_the_same_version_the_main_one_gives_the_file(tmp_path: Path) -> None:
    """An extra index with a few files must not replace the file for this platform by one for all platforms."""
    for name, platforms in {"main": [PLATFORM, "any"], "extra": ["any"]}.items():
        folder = tmp_path / name / PACKAGE
        folder.mkdir(parents=True)
        links = [wheel(folder, f"py3-none-{platform}") for platform in platforms]
        (folder / "index.html").write_text("".join(f'<a href="{link}">{link}</a>' for link in links))
    indexes = [(tmp_path / name).as_uri() for name in ("main", "extra")]
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nindex-url = {indexes[0]}\nextra-index-url = {indexes[1]}\n")

    done = install(tmp_path / "to", f'eval "$({sys.executable} scripts/uv_settings.py)"', config)
    assert done.returncode == 0, done.stderr
    assert PLATFORM in (tmp_path / "to" / f"{MODULE}-1.0.dist-info" / "WHEEL").read_text()


def test_the_environment_wins_over_the_users_file_and_that_over_the_machines() -> None:
    listed = [
        "install.index-url='https://install'",
        "global.index-url='https://global'",
        ":env:.find-links='/a /b'",
        "global.find-links='/c'",
        "global.extra-index-url='https://one\\nhttps://two'",
        "download.cert='/not-of-installing'",
    ]
    assert pip_settings(listed) == {
        "index-url": ["https://install"],
        "find-links": ["/a", "/b"],
        "extra-index-url": ["https://one", "https://two"],
    }


def test_uv_gets_pips_settings_and_keeps_its_own() -> None:
    settings = {
        "index-url": ["https://a"],
        "extra-index-url": ["https://b", "https://c"],
        "find-links": ["/d", "/e"],
    }
    assert uv_variables(settings, {}) == {
        "UV_SYSTEM_CERTS": "true",
        "UV_DEFAULT_INDEX": "https://a",
        "UV_INDEX": "https://a https://b https://c",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/d,/e",
    }
    own = {"UV_DEFAULT_INDEX": "https://mine", "UV_SYSTEM_CERTS": "false"}
    assert uv_variables({"index-url": ["https://a"]}, own) == {}
