#!/usr/bin/env bash
# The quick check: formatting, lint, types and unit tests. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "[test]"

ruff format --check .
ruff check .
pyright &
types=$!
pytest tests/unit -n auto --maxprocesses 4 "$@" || failed=yes
wait "$types"
[ -z "${failed:-}" ]
