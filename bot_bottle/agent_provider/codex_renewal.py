"""Has Codex on this host renew its own login, as it does whenever it is used there.

The program trades its refresh token for new tokens and writes them to its ``auth.json``; nobody else does. A
refresh token is good once, so two runs of the program must never meet, and none is ended before it has
written what it got: either would end the operator's own login.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.files import make_private_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: How long the program is waited for. One that takes longer is left to end by itself, and holds the lock.
SECONDS = 60.0
_ACCOUNT = 2
#: Codex' app server: a JSON object a line on its standard streams, which it ends with.
_SAID = (
    {"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "bot-bottle", "version": "0"}}},
    {"method": "initialized"},
    {"id": _ACCOUNT, "method": "account/read", "params": {"refreshToken": True}},
)


def renew(env: Mapping[str, str], is_due: Callable[[], bool], *, seconds: float = SECONDS) -> None:
    """Run the program of the operator whose environment is ``env`` once, where a renewal ``is_due``.

    Says nothing of what came of it: that is in the login's file. Nothing happens where there is no program,
    or where another run (for any bottle of this operator) is under way. Raises ``OSError``.
    """
    program = shutil.which("codex", path=env.get("PATH"))
    if program is None:
        return
    make_private_dir(paths.home_dir())
    lock = os.open(paths.home_dir() / "codex-renewal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_due():  # the run before this one may have done it
                _run(program, env, lock, seconds)
    finally:
        os.close(lock)


def _run(program: str, env: Mapping[str, str], lock: int, seconds: float) -> None:
    # Not where the agent's work is: the program reads settings of the folder it stands in. The lock is its
    # own too, by inheritance, so that it holds for as long as the program lives.
    home = env.get("CODEX_HOME") or f"{env.get('HOME') or Path.home()}/.codex"
    process = subprocess.Popen(
        [program, "app-server"],
        cwd=home,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(lock,),
        start_new_session=True,
    )
    reading = threading.Thread(target=_speak, args=(process,), daemon=True)
    reading.start()
    reading.join(seconds)


def _speak(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait for the answer (an error too, which may come after a renewal), and let the program end."""
    if process.stdin is None or process.stdout is None:
        raise TypeError("the program has pipes")
    with contextlib.suppress(OSError), process.stdin, process.stdout:
        for message in _SAID:
            process.stdin.write(json.dumps(message).encode() + b"\n")
        process.stdin.flush()
        for line in process.stdout:
            if _answers(line):
                break
        process.stdin.close()
        process.stdout.read()
    process.wait()


def _answers(line: bytes) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("id") == _ACCOUNT
