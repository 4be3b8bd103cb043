#!/usr/bin/env bash
# All checks that a change must pass: formatting, lint, types, the code location, tests. Options, which come first:
#   --long       also the long forms of the tests
#   --random     the tests of each file in random order; pytest prints the seed, and `--randomly-seed SEED` repeats it
#   --coverage   also lists the lines and branches of bandscope_dagster and assets that no test ran; takes longer
# Other arguments go to pytest, which then does nothing else: `bash scripts/test.sh tests/unit -k levels`.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "[test]"

# Programs that the tests use. If this cannot install one, the tests say which one to install.
missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v ffmpeg >/dev/null || missing+=(ffmpeg)
command -v eatmydata >/dev/null || missing+=(eatmydata)
if [ ${#missing[@]} -gt 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "Installing ${missing[*]} (once; a minute)"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

run="pytest" options="" coverage=""
while [[ "${1:-}" =~ ^--(long|random|coverage)$ ]]; do
    case "$1" in
        --long) options="$options --long" ;;
        --random) options="$options -p randomly" ;;
        --coverage) coverage=yes run="coverage run -m pytest" ;;
    esac
    shift
done
[ -z "$coverage" ] || coverage erase

if [ $# -gt 0 ]; then
    $run $options "$@"
else
    ruff format --check .
    ruff check .
    pyright
    dg check defs
    # Three at once: many tests wait for servers and daemons. The slow files come first (tests/support/slow_files.py).
    # Threads of OpenMP wait without turning: with more processes than cores, they would take the time of those that
    # compute. eatmydata makes fsync do nothing: no test ends with a power cut, and Dagster's SQLite waits for the disk
    # half the time.
    quick_disk="$(command -v eatmydata || true)"
    # The tests that listen to a page come alone, because sound is played in real time.
    listening=tests/integration/test_pages_in_browser.py
    $quick_disk $run $options "$listening"
    export OMP_WAIT_POLICY=passive
    $quick_disk $run $options -n 3 --dist loadfile --no-loadscope-reorder --ignore "$listening"
fi
[ -z "$coverage" ] || { coverage combine --quiet && coverage report; }
