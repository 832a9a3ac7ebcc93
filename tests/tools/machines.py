"""Run the tests of microVMs, in an emulated machine where none boots here.

``python -m tests.tools.machines [PYTEST ARGUMENTS]``. Exit code 3 says that this machine can do neither, with
a sentence that says what is missing. The tests choose for themselves what an emulated machine can carry
(tests.support.machine_tests).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bot_bottle.backend.registry import get_bottle_backend
from bot_bottle.backend.smolmachines import engine, probe
from bot_bottle.errors import BotBottleError, UnavailableError
from tests.support import npm
from tests.support.machine_image import VARIABLE, NoImageError, machine_disk, machine_image
from tests.support.machine_tests import BACKEND
from tests.tools.kvmbox import Disk, NoBoxError, run

_IMAGE_IN_THE_BOX = "/mnt/image"
_SECONDS = 2400.0
_REQUIRE = "BOT_BOTTLE_TEST_REQUIRE"
_FILES = ("tests/attacks", "tests/integration")


def main(arguments: list[str]) -> int:
    """Choose where they run, prepare that place, and give pytest's exit code."""
    try:
        engine.sdk()
        with contextlib.suppress(pytest.skip.Exception):
            npm.installed("@anthropic-ai/claude-code", "claude")
        os.environ[_REQUIRE] = BACKEND
        chosen = arguments or list(_FILES)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen, "-k", BACKEND]
        if get_bottle_backend(BACKEND).probe().level == "ok":
            os.environ[VARIABLE] = machine_image()
            return subprocess.run(command, check=False).returncode
        disk = Disk(image=machine_disk(), point=_IMAGE_IN_THE_BOX)
        os.environ[VARIABLE] = _IMAGE_IN_THE_BOX
        _unpack_templates()
        with tempfile.TemporaryDirectory(prefix="machines-") as out:
            return run(command, out=Path(out), seconds=_SECONDS, disks=[disk], env=[VARIABLE, _REQUIRE])
    except (NoBoxError, NoImageError, UnavailableError) as error:
        print(f"no machine can be had here: {error}", file=sys.stderr)
        return 3


def _unpack_templates() -> None:
    """Let the engine unpack its disks beside its package here, which in emulation takes minutes.

    It does so before it looks for KVM, and what becomes of the machine does not matter.
    """
    with contextlib.suppress(BotBottleError):
        probe.try_to_boot()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
