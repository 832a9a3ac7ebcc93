"""Fuzz with atheris, every target for a while: ``python -m tests.fuzz [--seconds 600] [TARGET ...]``.

A finding is written to the folder that is named at the end; make it a file below ``tests/fuzz/corpus``, so
that the plain tests run it from then on.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
NAMES = sorted(path.name for path in CORPUS.iterdir())
_LONGEST = 4096


def main() -> int:
    """Run the targets one after another, each in a process of its own; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}")
    arguments = parser.parse_args()
    names = arguments.targets or NAMES
    if unknown := sorted({*names} - {*NAMES}):
        parser.error(f"no target: {', '.join(unknown)} (there are {', '.join(NAMES)})")
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("atheris is not installed (pip install atheris); nothing was fuzzed\n")
        return 2
    found = Path(tempfile.mkdtemp(prefix="bot-bottle-fuzz-"))
    failed = []
    for name in names:
        grown = found / f"{name}-corpus"
        grown.mkdir()
        argv = [sys.executable, "-m", "tests.fuzz.run", name, str(grown), str(CORPUS / name)]
        argv += [f"-max_total_time={max(1, arguments.seconds // len(names))}", f"-max_len={_LONGEST}"]
        argv += [f"-artifact_prefix={found}/{name}-", "-print_final_stats=1", "-verbosity=0"]
        if subprocess.run(argv, check=False, env={**os.environ, "PYTHONWARNINGS": "error"}).returncode:
            failed.append(name)
    sys.stderr.write(f"what was found: {', '.join(failed) or 'nothing'}; {found}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
