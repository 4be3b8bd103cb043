#!/usr/bin/env bash
# All checks that a change must pass: formatting, lint, types, the code location, tests. With arguments, only these tests.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "[test]"

# The UI is tested in a real browser. If this cannot install one, the tests say which one to install.
if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "Installing chromium (once; a minute) …"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
fi

[ $# -eq 0 ] || exec pytest "$@"

ruff format --check .
ruff check .
pyright
dg check defs
# Three at once: many tests wait for servers and daemons.
pytest --long -n 3 --dist loadfile
