"""Prints pip's settings as shell assignments for uv, which reads none of them: indexes, local packages, certificates.

Run it with the Python whose pip is meant: ``eval "$(.venv/bin/python scripts/uv_settings.py)"``. Variables that are
already set are kept. pip's settings: https://pip.pypa.io/en/stable/topics/configuration/; uv's variables:
https://docs.astral.sh/uv/reference/environment/
"""

import ast
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping

VARIABLES = {  # pip's setting → uv's variable, and the separator of several values
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
}
PYPI = "https://pypi.org/simple"  # the main index of pip, if no setting names another one
SECTIONS = ("global", "install", ":env:")  # the later one wins


def pip_settings(lines: Iterable[str]) -> dict[str, list[str]]:
    """The settings in the output of ``pip config list``: name → values."""
    found: dict[str, tuple[int, list[str]]] = {}
    for line in lines:
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in SECTIONS and value:
            rank = SECTIONS.index(section)
            if rank >= found.get(name, (-1, []))[0]:
                found[name] = rank, str(ast.literal_eval(value)).split()
    return {name: values for name, (_, values) in found.items()}


def uv_variables(settings: Mapping[str, list[str]], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to set for uv, so that it finds what pip finds."""
    variables = {"UV_SYSTEM_CERTS": "true"}  # also those that a company added to the system's
    for name, (variable, separator) in VARIABLES.items():
        if values := settings.get(name):
            variables[variable] = separator.join(values)
    if extra := settings.get("extra-index-url"):
        # Like pip: the newest version of all indexes; hashes.txt holds the files. Where several indexes have the same
        # version, uv takes only the files of the first one. An extra index may lack the file for this platform, so the
        # main index is named first.
        variables["UV_INDEX"] = " ".join([*settings.get("index-url", [PYPI]), *extra])
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in variables.items() if name not in environment}


if __name__ == "__main__":
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    for name, value in uv_variables(pip_settings(listed.stdout.splitlines()), os.environ).items():
        print(f"export {name}={shlex.quote(value)}")
