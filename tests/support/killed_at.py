"""Run the product until a step of it is reached, and kill it there.

``python -m tests.support.killed_at STEP ARGS``: STEP is ``before|after:NUMBER:MODULE:NAME``, the NUMBERth
call of what MODULE knows as NAME; the product itself knows nothing of it. ARGS are those of ``bot-bottle``.
This process stays as the reaper of all orphans (prctl(2), PR_SET_CHILD_SUBREAPER) and ends only when the last
process below it has, with the exit code that a shell would give the product's.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PR_SET_CHILD_SUBREAPER = 36


def kill_at(step: str) -> None:
    """Let this process be killed at ``step``."""
    when, number, module, name = step.split(":")
    owner: Any = importlib.import_module(module)
    *parents, last = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    wrapped: Callable[..., Any] = getattr(owner, last)
    static = isinstance(owner, type) and isinstance(owner.__dict__.get(last), classmethod)
    left, lock = [int(number)], threading.Lock()

    def is_the_one() -> bool:
        with lock:
            left[0] -= 1
            return left[0] == 0

    @functools.wraps(wrapped)
    def step_of_it(*args: Any, **more: Any) -> Any:
        killed = is_the_one()
        if killed and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = wrapped(*(args[1:] if static else args), **more)
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, last, classmethod(step_of_it) if static else step_of_it)


def main(argv: Sequence[str]) -> int:
    """Run and wait for everything below."""
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    child = os.fork()
    if child == 0:
        kill_at(argv[0])
        from bot_bottle.cli import main as product  # noqa: PLC0415 - the child alone is the product

        sys.argv[1:] = argv[1:]
        code = product()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = -1
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return code if code >= 0 else 128 - code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
