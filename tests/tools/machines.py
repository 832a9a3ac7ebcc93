"""Run the tests of microVMs, in an emulated machine where none boots here.

``python -m tests.tools.machines [--core] [PYTEST ARGUMENTS]``. Exit code 77 says that this machine can do
neither; a sentence says what is missing. The tests choose for themselves what an emulated machine can carry
(tests.support.machine_tests), and with ``--core`` what every run of CI can wait for. What does not end well
in an emulated machine is tried once more in a fresh one (tests.tools.boxed_tests). Where other work runs
beside them, ``BOT_BOTTLE_TEST_MACHINES_SECONDS`` gives emulated machines more time than they have by default.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bot_bottle.backend.registry import get_bottle_backend
from bot_bottle.backend.smolmachines import engine, probe
from bot_bottle.errors import BotBottleError, UnavailableError
from tests.support import npm
from tests.support.machine_image import VARIABLE, NoImageError, machine_disk, machine_image
from tests.support.machine_tests import (
    APART,
    BACKEND,
    CHOICE,
    CORE,
    CORE_CHOICE,
    CORE_PLACES,
    EMULATED_PLACES,
    PART,
)
from tests.tools.boxed_tests import listed, run_twice
from tests.tools.kvmbox import NO_VERDICT, Disk, NoBoxError

_IMAGE_IN_THE_BOX = "/mnt/image"
_REQUIRE = "BOT_BOTTLE_TEST_REQUIRE"
_FILES = ("tests/attacks", "tests/integration")
#: The exit code where there is nothing to run them in; none of pytest's own.
CANNOT = 77
#: How long emulated machines have for all of it; where nothing else runs half of it is enough.
_SECONDS = 2700.0
_CORE_SECONDS = 900.0
_PATIENCE = "BOT_BOTTLE_TEST_MACHINES_SECONDS"


def main(arguments: list[str]) -> int:
    """Choose where they run, prepare that place, and give pytest's exit code."""
    core = arguments[:1] == ["--core"]
    arguments = arguments[core:]
    try:
        engine.sdk()
        if not core:
            with contextlib.suppress(pytest.skip.Exception):
                npm.installed("@anthropic-ai/claude-code", "claude")
                npm.installed("@openai/codex", "codex")
        os.environ[_REQUIRE] = BACKEND
        os.environ.pop(APART, None)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=12"]
        if get_bottle_backend(BACKEND).probe().level == "ok":
            os.environ[VARIABLE] = machine_image(programs=not core)
            chosen = arguments or [*_FILES, "-k", BACKEND]
            return subprocess.run([*command, *chosen], check=False).returncode
        return _in_a_box(command, arguments, core=core)
    except (NoBoxError, NoImageError, UnavailableError) as error:
        print(f"no machine can be had here: {error}", file=sys.stderr)
        return CANNOT


def _in_a_box(command: list[str], arguments: list[str], *, core: bool) -> int:
    began = time.monotonic()
    print(CORE_CHOICE if core else CHOICE, flush=True)
    chosen = arguments or list(CORE_PLACES if core else EMULATED_PLACES)
    disk = Disk(image=machine_disk(programs=not core), point=_IMAGE_IN_THE_BOX)
    os.environ[VARIABLE] = _IMAGE_IN_THE_BOX
    if core:
        os.environ[PART] = CORE
    _unpack_templates()
    # What Python compiles beside its sources here, it need not compile there, where it takes a minute.
    compileall.compile_dir("bot_bottle", quiet=2)
    compileall.compile_dir("tests", quiet=2)
    tests = listed(command, chosen)
    print(f"{len(tests)} tests; made ready in {time.monotonic() - began:.0f} s", flush=True)
    seconds = float(os.environ.get(_PATIENCE) or (_CORE_SECONDS if core else _SECONDS))
    code = run_twice(command, tests, seconds=seconds, disks=[disk], env=[VARIABLE, PART, _REQUIRE])
    if code == NO_VERDICT:
        print("the tests in microVMs came to no end; what was said last is above", file=sys.stderr)
    return code


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


if __name__ == "__main__":
    # Who runs this beside other work may end it; then the emulated machine ends too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
