"""Fuzzing guided by coverage: inputs that reach new branches of Bandscope's code are kept and mutated further.

    python -m fuzzing.guided [--target NAME] [--inputs N] [--seed S] [--keep DIR]

It uses Atheris and libFuzzer, for the parsers that are Python code of Bandscope. It cannot measure the coverage of
decoders, which are native code in other processes, and a library reads the settings; ``python -m fuzzing`` tests those.
Each target runs in a process of its own, which libFuzzer ends. An input that causes a defect is kept in DIR, and its
traceback is printed. The exit status is 1 if there was a defect.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NoReturn

import atheris

with atheris.instrument_imports(include=["bandscope_dagster"]):
    from fuzzing.targets import TARGETS, Target

GUIDED: Final = {
    target.name: target for target in TARGETS if target.name in ("structures", "answers", "names")
}
MAX_BYTES: Final = 4096  # of an input; the parsed texts are short or truncated


def fuzz(target: Target, inputs: int, seed: int, keep: Path, corpus: Path) -> NoReturn:
    """Check ``inputs`` inputs and end this process, with status 0 if there was no defect.

    ``corpus`` is an empty folder for the inputs that reach new branches.
    """
    keep.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(data)

    def check(data: bytes) -> None:
        target.check(data)

    options = {
        "runs": inputs,
        "seed": seed,
        "max_len": MAX_BYTES,
        "timeout": round(target.limit_s),
        "artifact_prefix": keep / f"{target.name}-",
    }
    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], check)
    atheris.Fuzz()
    raise AssertionError("libFuzzer ends the process")


def main() -> None:
    """Run the targets, each in a process, one after the other."""
    parser = argparse.ArgumentParser(description="Fuzz the parsers of Bandscope, guided by coverage.")
    parser.add_argument("--target", choices=list(GUIDED), help="default: all")
    parser.add_argument(
        "--inputs", type=int, default=100_000, metavar="N", help="of each target; default: 100000"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="default: 1")
    parser.add_argument("--keep", type=Path, default=Path("fuzzing-defects"), metavar="DIR")
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.corpus is not None:
        target = GUIDED[arguments.target]
        fuzz(target, arguments.inputs, arguments.seed, arguments.keep, arguments.corpus)
    broken: list[str] = []
    for name in GUIDED if arguments.target is None else [arguments.target]:
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="bandscope-corpus-") as corpus:
            given = {"target": name, "inputs": arguments.inputs, "seed": arguments.seed}
            options = {**given, "keep": arguments.keep, "corpus": corpus}
            command = [sys.executable, "-m", "fuzzing.guided"]
            command += [part for option, value in options.items() for part in (f"--{option}", str(value))]
            if subprocess.run(command).returncode:
                broken.append(name)
    print(f"broken: {', '.join(broken) or 'none'}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
