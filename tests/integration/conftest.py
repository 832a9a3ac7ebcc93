"""Real programs that several tests start."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import cannot
from tests.support.outside import download_cache

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = "@anthropic-ai/claude-code"


@pytest.fixture(scope="session")
def claude() -> Path:
    """Install the program from npm into the cache, unless it is there."""
    prefix = download_cache() / "claude"
    program = prefix / "node_modules" / ".bin" / "claude"
    if not program.exists():
        npm = shutil.which("npm")
        if npm is None:
            cannot("npm is not installed, so the real claude program cannot be fetched")
        result = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(prefix), PACKAGE],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if result.returncode != 0:
            shutil.rmtree(prefix, ignore_errors=True)
            cannot(f"npm could not install {PACKAGE}: {result.stderr.strip()[-500:]}")
    return program
