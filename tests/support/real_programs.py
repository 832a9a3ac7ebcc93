"""Real agent programs from npm, installed once into a cache folder of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_INSTALL_SECONDS = 600


def cache_folder() -> Path:
    """Give the folder for what tests download; ``BOT_BOTTLE_TEST_CACHE`` names another."""
    configured = os.environ.get("BOT_BOTTLE_TEST_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "bot-bottle-tests"


def npm_program(package: str, program: str) -> Path:
    """Install ``package`` unless it is there, give the folder of ``program``; skips where that fails."""
    prefix = cache_folder() / package.replace("/", "_").lstrip("@")
    folder = prefix / "node_modules" / ".bin"
    if _runs(folder / program):
        return folder
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not on this machine, so the real {program} cannot be installed")
    prefix.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(
        [npm, "install", "--prefix", str(prefix), "--no-audit", "--no-fund", "--no-save", package],
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode != 0 or not _runs(folder / program):
        pytest.skip(f"npm could not install {package}: {result.stderr.strip()[-300:]}")
    return folder


def _runs(path: Path) -> bool:
    if not path.exists():
        return False
    return (
        subprocess.run([str(path), "--version"], capture_output=True, check=False, timeout=60).returncode == 0
    )
