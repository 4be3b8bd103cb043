#!/usr/bin/env bash
# The whole way from audio files to stems, instruments, pages and Parquet: bash scripts/demo.sh [AUDIO…]
# It takes the given files or folders, or the three songs in scripts/demo_audio/. All its output is in demo/.
given=()
for path in "$@"; do given+=("$(realpath -- "$path")"); done

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""

export BANDSCOPE_STORAGE="$PWD/demo/store" DAGSTER_HOME="$PWD/demo/dagster"
mkdir -p demo/store

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
ask() { printf '\n$ bandscope sql "%s"\n' "$1"; bandscope sql "$1"; }

say "Uploading"
if [ ${#given[@]} -gt 0 ]; then
    bandscope ingest "${given[@]}"
else
    bandscope ingest scripts/demo_audio/*.mp3 scripts/demo_audio/*.ogg
fi

say "Separating and tagging the songs"
touch demo/started
began=$SECONDS
bandscope run
took=$((SECONDS - began))
songs=$(find demo/store/stems -name '*.parquet' -newer demo/started 2>/dev/null | wc -l)
[ "$songs" -eq 0 ] || echo "$songs songs took $took s on this machine, $((took / songs)) s each, with the start and the loading of the models."

say "Details of each song"
bandscope status '*'

say "The same as SQL queries"
ask "SELECT title, filename, round(duration_s, 1) AS seconds, round(loudness_lufs, 1) AS lufs, status FROM song_catalog ORDER BY lufs"
ask "SELECT instrument, source, count(*) AS songs, round(max(score_max), 2) AS best_score FROM instrument_catalog WHERE seconds_present > 0 GROUP BY instrument, source ORDER BY songs DESC, best_score DESC LIMIT 10"

if [ ${#given[@]} -eq 0 ]; then
    say "What plays, and what was heard"
    python scripts/demo_score.py demo/store
fi

say "One page per song: play, solo and mute its stems, and see its instruments over time"
pages="$PWD/demo/pages"
bandscope report --all --to "$pages"
echo "Open $pages/index.html"

say "For the next commands of the README, use the same store:"
echo "source '$PWD/.venv/bin/activate'"
echo "export BANDSCOPE_STORAGE='$BANDSCOPE_STORAGE'"
echo "export DAGSTER_HOME='$DAGSTER_HOME'"
echo "dagster dev -w '$PWD/workspace.yaml'    # the Dagster UI, http://localhost:3000"
