"""Run the tests of microVMs, in an emulated machine where none boots here.

``python -m tests.tools.machines [PYTEST ARGUMENTS]``. Exit code 77 says that this machine can do neither; a
sentence says what is missing. The tests choose for themselves what an emulated machine can carry
(tests.support.machine_tests).
"""

from __future__ import annotations

import compileall
import contextlib
import os
import signal
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
from tests.support.machine_tests import APART, BACKEND, CHOICE, EMULATED_PLACES
from tests.tools.kvmbox import MARK, NO_VERDICT, Disk, NoBoxError, run

_IMAGE_IN_THE_BOX = "/mnt/image"
_REQUIRE = "BOT_BOTTLE_TEST_REQUIRE"
_FILES = ("tests/attacks", "tests/integration")
#: The exit code where there is nothing to run them in; none of pytest's own.
CANNOT = 77
#: How long an emulated machine has for all of it; where nothing else runs a quarter less is enough.
_SECONDS = 1320.0


def main(arguments: list[str]) -> int:
    """Choose where they run, prepare that place, and give pytest's exit code."""
    try:
        engine.sdk()
        with contextlib.suppress(pytest.skip.Exception):
            npm.installed("@anthropic-ai/claude-code", "claude")
            npm.installed("@openai/codex", "codex")
        os.environ[_REQUIRE] = BACKEND
        os.environ.pop(APART, None)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=12"]
        if get_bottle_backend(BACKEND).probe().level == "ok":
            os.environ[VARIABLE] = machine_image()
            chosen = arguments or [*_FILES, "-k", BACKEND]
            return subprocess.run([*command, *chosen], check=False).returncode
        print(CHOICE, flush=True)
        chosen = arguments or list(EMULATED_PLACES)
        disk = Disk(image=machine_disk(), point=_IMAGE_IN_THE_BOX)
        os.environ[VARIABLE] = _IMAGE_IN_THE_BOX
        _unpack_templates()
        with tempfile.TemporaryDirectory(prefix="machines-") as out:
            _compile([*command, *chosen])
            box = [*command, *chosen]
            code = run(box, out=Path(out), seconds=_SECONDS, disks=[disk], env=[VARIABLE, _REQUIRE])
            if code == NO_VERDICT:
                print("the tests in microVMs came to no end; what was said last is above", file=sys.stderr)
            return code
    except (NoBoxError, NoImageError, UnavailableError) as error:
        print(f"no machine can be had here: {error}", file=sys.stderr)
        return CANNOT


def _unpack_templates() -> None:
    """Let the engine unpack its disks beside its package here, which in emulation takes minutes.

    It does so before it looks for KVM, and what becomes of the machine does not matter. Looking whether one
    boots here, which fails in its own time, has done it already where that was not known before.
    """
    packed = Path(str(engine.sdk().__file__)).parent.glob("*-template.ext4.zst")
    if all(template.with_suffix("").exists() for template in packed):
        return
    with contextlib.suppress(BotBottleError):
        probe.try_to_boot()


def _compile(tests: list[str]) -> None:
    """Have what Python compiles beside its sources already, which there would take a minute of its own.

    Listing the tests compiles them, with what pytest adds to them.
    """
    compileall.compile_dir("bot_bottle", quiet=2)
    compileall.compile_dir("tests", quiet=2)
    listing = [*tests, "--collect-only", "-q"]
    subprocess.run(listing, stdout=subprocess.DEVNULL, check=False, env={**os.environ, MARK: "1"})


if __name__ == "__main__":
    # Who runs this beside other work may end it; then the emulated machine ends too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
