"""Real programs from npm, installed once into the cache of downloads."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.conftest import cannot
from tests.support.outside import alone_in_cache

if TYPE_CHECKING:
    from pathlib import Path


def installed(package: str, program: str) -> Path:
    """Give the path of ``program``, installing ``package`` unless it is there; skips where that fails."""
    with alone_in_cache(program) as prefix:
        path = prefix / "node_modules" / ".bin" / program
        if not path.exists():
            _install(package, program, prefix)
    return path


def _install(package: str, program: str, prefix: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        cannot(f"npm is not installed, so the real {program} program cannot be fetched")
    result = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(prefix), package],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if result.returncode != 0:
        shutil.rmtree(prefix, ignore_errors=True)
        cannot(f"npm could not install {package}: {result.stderr.strip()[-500:]}")
