"""Launch one bottle by the product's own API and do in it what a test asks, over a unix socket.

``python -m tests.support.runner SOCKET`` connects to the test. It is a process of its own, so that the same
test drives a bottle as root and as an ordinary user, and so that it can be killed like any launcher.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bot_bottle.backend.base import Bottle, ExecResult
from bot_bottle.backend.launch import launch_bottle, settle
from bot_bottle.backend.plan import BottleSpec
from bot_bottle.backend.prepare import prepare_plan
from bot_bottle.backend.registry import get_bottle_backend
from bot_bottle.errors import BotBottleError
from bot_bottle.manifest.model import Manifest
from bot_bottle.operator_config import load_operator_config
from bot_bottle.sidecar import client
from tests.support import clock

if TYPE_CHECKING:
    from collections.abc import Callable


def main(argv: list[str]) -> int:
    """Serve one bottle."""
    if clock.VARIABLE in os.environ:  # a machine has one clock: the sidecar is under it, too
        client._PASSED_ENV += (clock.VARIABLE, "LD_PRELOAD")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(argv[1])
        with connection.makefile("r") as calls, connection.makefile("w") as answers:
            request = json.loads(calls.readline())
            try:
                _serve(request, calls, answers)
            except BotBottleError as error:
                _answer(answers, error=f"{type(error).__name__}: {error}")
                return error.exit_code
            except Exception:
                _answer(answers, error=traceback.format_exc())
                raise
    return 0


def _serve(request: dict[str, Any], calls: IO[str], answers: IO[str]) -> None:
    cwd = Path(request["cwd"])
    spec = BottleSpec(
        manifest=Manifest.resolve(cwd),
        agent_name=request["agent"],
        user_cwd=cwd,
        copy_cwd=request["copy_cwd"],
        identity=request["identity"],
        headless=False,
    )
    plan = prepare_plan(spec, get_bottle_backend(request["backend"]), load_operator_config())
    with launch_bottle(plan) as bottle:
        _answer(
            answers,
            identity=plan.identity,
            state_dir=str(plan.state_dir),
            audit_path=str(plan.audit_path),
            guest_env=dict(plan.guest_env),
            children=[
                int(pid) for pid in Path("/proc/self/task", str(os.getpid()), "children").read_text().split()
            ],
        )
        exit_code = _commands(bottle, calls, answers)
    settle(plan.identity, exit_code)
    _answer(answers, ended=True)


def _commands(bottle: Bottle, calls: IO[str], answers: IO[str]) -> int:
    """Answer commands until the test says how the session ended."""
    for line in calls:
        call = json.loads(line)
        op = call.pop("op")
        if op == "end":
            return int(call["exit_code"])
        if op == "interrupt":
            raise KeyboardInterrupt
        try:
            answer = _OPS[op](bottle, **call)
        except (BotBottleError, TimeoutError) as error:
            answer = {"raised": type(error).__name__, "message": str(error)}
        _answer(answers, **answer)
    return 1


def _exec(bottle: Bottle, script: str, stdin: str, timeout: float | None, user: str) -> dict[str, Any]:
    return _result(bottle.exec(script, stdin=base64.b64decode(stdin), timeout=timeout, user=user))


def _exec_stream(bottle: Bottle, script: str, source: str, sink: str) -> dict[str, Any]:
    """Stream from and to files; without a sink the output is collected."""
    with contextlib.ExitStack() as files:
        stdin = files.enter_context(Path(source).open("rb")) if source else None
        stdout = files.enter_context(Path(sink).open("wb")) if sink else None
        return _result(bottle.exec_stream(script, stdin=stdin, stdout=stdout))


def _agent(bottle: Bottle, argv: list[str], stdin: str, tty: bool) -> dict[str, Any]:
    """Run the agent on this process's own standard streams, put on files for that time."""
    own = [os.dup(stream) for stream in (0, 1, 2)]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in own]
        files[0].write(base64.b64decode(stdin))
        files[0].seek(0)
        for stream, file in enumerate(files):
            os.dup2(file.fileno(), stream)
        try:
            returncode = bottle.exec_agent(argv, tty=tty)
        finally:
            for stream, descriptor in enumerate(own):
                os.dup2(descriptor, stream)
                os.close(descriptor)
        for file in files:
            file.seek(0)
        return _result(ExecResult(returncode=returncode, stdout=files[1].read(), stderr=files[2].read()))


def _cp_in(bottle: Bottle, host: str, guest: str) -> dict[str, Any]:
    bottle.cp_in(Path(host), guest)
    return {}


def _cp_out(bottle: Bottle, guest: str, host: str) -> dict[str, Any]:
    bottle.cp_out(guest, Path(host))
    return {}


def _close(bottle: Bottle) -> dict[str, Any]:
    bottle.close()
    return {}


def _result(result: ExecResult) -> dict[str, Any]:
    return {
        "returncode": result.returncode,
        "stdout": base64.b64encode(result.stdout).decode(),
        "stderr": base64.b64encode(result.stderr).decode(),
    }


_OPS: dict[str, Callable[..., dict[str, Any]]] = {
    "exec": _exec,
    "exec_stream": _exec_stream,
    "agent": _agent,
    "cp_in": _cp_in,
    "cp_out": _cp_out,
    "close": _close,
}


def _answer(answers: IO[str], **fields: object) -> None:
    answers.write(json.dumps(fields) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
