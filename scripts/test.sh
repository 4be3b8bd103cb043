#!/usr/bin/env bash
# Everything that must hold before a change lands: formatting, lint, types, tests.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "[test]"

ruff format --check .
ruff check .
pyright
pytest "$@"
