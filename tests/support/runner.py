"""Launch one bottle by the product's own API and do in it what a test asks, over a unix socket.

``python -m tests.support.runner SOCKET`` connects to the test. It is a process of its own, so that the same
test drives a bottle as root and as an ordinary user, and so that it can be killed like any launcher.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import IO, Any

from bot_bottle.backend.base import Bottle, BottleSpec
from bot_bottle.backend.launch import launch_bottle, settle
from bot_bottle.backend.prepare import prepare_plan
from bot_bottle.backend.registry import get_bottle_backend
from bot_bottle.errors import BotBottleError
from bot_bottle.manifest.model import Manifest
from bot_bottle.operator_config import load_operator_config


def main(argv: list[str]) -> int:
    """Serve one bottle."""
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
        headless=True,
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
        if call["op"] == "end":
            return int(call["exit_code"])
        try:
            result = bottle.exec(
                call["script"], stdin=base64.b64decode(call["stdin"]), timeout=float(call["timeout"])
            )
        except TimeoutError as error:
            _answer(answers, timeout=str(error) or "timed out")
        else:
            _answer(
                answers,
                returncode=result.returncode,
                stdout=base64.b64encode(result.stdout).decode(),
                stderr=base64.b64encode(result.stderr).decode(),
            )
    return 1


def _answer(answers: IO[str], **fields: object) -> None:
    answers.write(json.dumps(fields) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
