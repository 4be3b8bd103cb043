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

# PyTorch comes by pip. Without an NVIDIA GPU it is the CPU build (180 MB; the CUDA build takes 3 GB): the one that pip
# is configured to find, if there is one, else that of PyTorch's own index.
install_torch() {
    local pip=(.venv/bin/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt)
    local found
    found="$("${pip[@]}" --quiet --dry-run --no-deps --report - torch 2>/dev/null)" || found='"url": "unknown"'
    found="$(grep -o '"url": *"[^"]*"' <<<"$found" || true)"
    [ -n "$found" ] || return 0 # it is installed
    if [[ "$(uname -s)" != Linux || "$found" == *cpu* ]] || nvidia-smi -L >/dev/null 2>&1; then
        echo "[1/2] PyTorch: $(basename "$found" | tr -d '"' | sed s/%2B/+/)"
    else
        echo "[1/2] PyTorch: the CPU build, 180 MB; no NVIDIA GPU was found"
        "${pip[@]}" --quiet --no-deps --retries 1 --index-url https://download.pytorch.org/whl/cpu torch && return
        echo "PyTorch's index cannot be reached: installing the build with CUDA from your index, 3 GB" >&2
    fi
    "${pip[@]}" --quiet torch
}

# The rest comes by uv, which is several times faster than pip. It gets pip's settings; if it fails, pip does the work.
# All bytecode is compiled, so that later processes start faster, also if Python may not write bytecode itself.
install_packages() {
    echo "[2/2] $(grep -c == constraints.txt) packages, 300 MB"
    (
        eval "$(.venv/bin/python scripts/uv_settings.py)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
        .venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python \
            -c constraints.txt -c hashes.txt -e ".$extras"
    ) && return
    echo "uv could not install them; pip does, which takes some minutes" >&2
    # With the digests too: pip checks them for the packages, and the project itself, which has none, comes after them.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r hashes.txt
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
}

wanted="$(cat pyproject.toml constraints.txt hashes.txt | cksum) $extras"
if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ] && [ "$(cat .venv/installed 2>/dev/null)" != "${wanted% *} [test]" ]; then
    echo "Installing into .venv, once; about a minute with a fast connection"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    install_torch
    install_packages
    echo "$wanted" > .venv/installed
fi
export PATH="$PWD/.venv/bin:$PATH"
# The tests start hundreds of processes; without stored bytecode, each compiles our modules again, and pytest the tests.
unset PYTHONDONTWRITEBYTECODE
