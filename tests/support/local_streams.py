"""A stand-in for a bottle's streams that runs the same scripts in a plain local shell.

Only for tests of what lies above the backends (archives, provisioning); nothing is isolated here.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from typing import BinaryIO

from bot_bottle.backend.base import ExecResult


class LocalStreams:
    """Runs scripts with ``sh``; counts what was asked of it."""

    def __init__(self) -> None:
        self.scripts: list[str] = []

    def exec_stream(self, script: str, *, stdin: BinaryIO | None, stdout: BinaryIO | None) -> ExecResult:
        self.scripts.append(script)
        with subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            feeder = threading.Thread(target=_feed, args=(stdin, process.stdin))
            feeder.start()
            output = b""
            if stdout is None:
                output = process.stdout.read()
            else:
                shutil.copyfileobj(process.stdout, stdout)
            feeder.join()
            errors = process.stderr.read()
        return ExecResult(returncode=process.returncode, stdout=output, stderr=errors)


def _feed(source: BinaryIO | None, sink: BinaryIO) -> None:
    try:
        with sink:
            if source is not None:
                shutil.copyfileobj(source, sink)
    except BrokenPipeError:
        pass
