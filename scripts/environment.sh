# Sourced by the other scripts: installs .venv with the versions of constraints.txt, and again when they change.
# Usage: source scripts/environment.sh EXTRAS   (EXTRAS: "" or "[test]")

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras="$1"
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12)))' || {
    echo "Bandscope needs Python 3.11 or 3.12; $("$python" --version) was found. Set PYTHON to another one." >&2
    exit 1
}

wanted="$(cat pyproject.toml constraints.txt hashes.txt | cksum) $extras"
if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ] && [ "$(cat .venv/installed 2>/dev/null)" != "${wanted% *} [test]" ]; then
    echo "Installing into .venv (once; a minute or two) …"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    # PyTorch comes first and by pip: if pip is configured to find a CPU build, it is kept and not replaced by
    # gigabytes of CUDA libraries. The rest comes by uv, which is several times faster. It compiles all bytecode, so
    # that later processes start faster, also if Python may not write bytecode itself.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt torch uv
    .venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python -c constraints.txt -c hashes.txt -e ".$extras"
    echo "$wanted" > .venv/installed
fi
export PATH="$PWD/.venv/bin:$PATH"
