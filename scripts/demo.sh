#!/usr/bin/env bash
# The whole way from audio files to stems, instruments and Parquet: bash scripts/demo.sh [AUDIO…]
# It uses the given files or folders, or renders demo songs. All its output is in demo/.
given=()
for path in "$@"; do given+=("$(realpath -- "$path")"); done

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""

export BANDSCOPE_STORAGE="$PWD/demo/store" DAGSTER_HOME="$PWD/demo/dagster"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
ask() { printf '\n$ bandscope sql "%s"\n' "$1"; bandscope sql "$1"; }

if [ ${#given[@]} -eq 0 ]; then
    say "Rendering three songs"
    [ -d demo/songs ] || { python scripts/demo_songs.py --to demo/songs.part && mv demo/songs.part demo/songs; }
    given=("$PWD/demo/songs")
fi

say "Uploading"
bandscope ingest "${given[@]}"

say "Separating and tagging the songs"
bandscope run

say "Details of each song"
bandscope status '*'

say "The same as SQL queries"
ask "SELECT title, filename, round(duration_s, 1) AS seconds, round(loudness_lufs, 1) AS lufs, status FROM song_catalog ORDER BY lufs"
ask "SELECT instrument, source, count(*) AS songs, round(max(score), 2) AS best_score FROM instrument_catalog WHERE seconds_present > 0 GROUP BY instrument, source ORDER BY songs DESC, best_score DESC LIMIT 10"

say "To open the Dagster UI (http://localhost:3000), run"
echo "cd '$PWD' && BANDSCOPE_STORAGE='$BANDSCOPE_STORAGE' DAGSTER_HOME='$DAGSTER_HOME' .venv/bin/dagster dev"
