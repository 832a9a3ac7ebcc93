"""Several unattended sessions at a time: a process each, so that none can take another down with it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import paths, process
from bot_bottle.files import make_private_dir
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Sequence

_TICK_SECONDS = 0.2
_HEAD = ("AGENT", "STATE", "TIME", "EXIT", "ALLOWED", "DENIED", "PUSHED", "TOKENS", "IDENTITY")
_COMMAND = (*process.OWN_COMMAND, "start")


@dataclass(slots=True, kw_only=True)
class Run:
    """One agent's session; ``result`` is the object of its ``--json`` once it has ended."""

    agent: str
    process: subprocess.Popen[bytes]
    log: Path
    out: Path
    began: float
    took: float = 0.0
    result: dict[str, object] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether there is a result."""
        return bool(self.result)

    def look(self) -> bool:
        """See whether it has ended since the last look."""
        if self.ended or self.process.poll() is None:
            return False
        self.took = time.monotonic() - self.began
        text = self.out.read_text("utf-8", "replace")
        with contextlib.suppress(ValueError):
            read = json.loads(text)
            self.result = read if isinstance(read, dict) else {}
        if not self.result:
            # Refused before there was a plan: its sentence is in the log.
            code = self.process.returncode
            words = self.log.read_text("utf-8", "replace").strip().splitlines()
            self.result = {
                "agent": self.agent,
                "exit_code": code if code >= 0 else 128 - code,
                "ended_by": "error",
                "error": words[-1].removeprefix("bot-bottle: ") if words else None,
            }
        self.result["log"] = str(self.log)
        self.out.unlink(missing_ok=True)
        return True


def row(run: Run, now: float) -> tuple[str, ...]:
    """Give a run's cells for the table, at ``now`` of the clock that it began by."""
    if not run.ended:
        return (run.agent, "running", _span(now - run.began), "", "", "", "", "", "")
    decisions, pushes = run.result.get("decisions"), run.result.get("pushes")
    counted = decisions if isinstance(decisions, dict) else {}
    listed = pushes if isinstance(pushes, list) else []
    taken = [one for one in listed if isinstance(one, dict) and one.get("taken")]
    return (
        run.agent,
        f"ended by {run.result.get('ended_by')}",
        _span(run.took),
        str(run.result.get("exit_code", "")),
        str(counted.get("allowed", "")),
        str(counted.get("denied", "")),
        str(len(taken)) if counted else "",
        _tokens(run.result.get("tokens")),
        str(run.result.get("identity", "")),
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows out under the head, as wide as their widest cells, safe to print."""
    lines = [_HEAD, *([legible(cell) for cell in one] for one in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def dry_run(agent: str, options: Sequence[str]) -> int:
    """Show one agent's plan on stderr; gives the exit code."""
    argv = [*_COMMAND, agent, "--headless", "--dry-run", *options]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode


class Runs:
    """Sessions that run side by side; started at once, ended together where this process must end."""

    def __init__(self, agents: Sequence[str], options: Sequence[str], *, task: str, live: bool) -> None:
        """Start them; with ``live`` the table on stderr is drawn over, else each change is a line."""
        folder = paths.home_dir() / "runs"
        make_private_dir(folder)
        self._folder = folder
        self._live = live
        self._drawn = 0
        self.runs: list[Run] = []
        try:
            for agent in agents:
                self.runs.append(self._start(agent, options, task))
        except BaseException:
            self._end_all()
            raise

    def until_all_have_ended(self) -> list[dict[str, object]]:
        """Wait, keep the table, and give each session's result in the order they were asked for."""
        try:
            while not all(run.ended for run in self.runs):
                changed = [run for run in self.runs if run.look()]
                self._show(changed)
                if not all(run.ended for run in self.runs):
                    time.sleep(_TICK_SECONDS)
        except BaseException:
            self._end_all()
            raise
        if not self._live:
            _say(table([row(run, time.monotonic()) for run in self.runs]))
        for run in self.runs:
            if run.result.get("error"):
                _say([f"bot-bottle: {run.agent}: {legible(str(run.result['error']))}"])
        _say([f"bot-bottle: what they wrote is in {self._folder}"])
        return [run.result for run in self.runs]

    def _start(self, agent: str, options: Sequence[str], task: str) -> Run:
        stamp = time.strftime("%Y%m%dT%H%M%S")
        log_fd, log = tempfile.mkstemp(dir=self._folder, prefix=f"{agent}-{stamp}-", suffix=".log")
        out_fd, out = tempfile.mkstemp(dir=self._folder, prefix=f".{agent}-", suffix=".json")
        argv = [*_COMMAND, agent, "--yes", "--headless", "--prompt", "-", "--json", *options]
        try:
            # A session of its own: Ctrl-C here is ours to pass on, once and in order.
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=out_fd, stderr=log_fd, start_new_session=True
            )
        finally:
            os.close(log_fd)
            os.close(out_fd)
        run = Run(agent=agent, process=process, log=Path(log), out=Path(out), began=time.monotonic())
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # its own sentence says why it ended already
                process.stdin.write(task.encode())
                process.stdin.close()
        return run

    def _end_all(self) -> None:
        for run in self.runs:
            if run.process.poll() is None:
                run.process.terminate()
        for run in self.runs:
            run.process.wait()
            run.look()
        self._show(self.runs)

    def _show(self, changed: Sequence[Run]) -> None:
        now = time.monotonic()
        if not self._live:
            for agent, state, _time, code, *_rest in (row(run, now) for run in changed):
                _say([f"bot-bottle: {agent}: {state}, exit code {code}"])
            return
        lines = table([row(run, now) for run in self.runs])
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        sys.stderr.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        sys.stderr.flush()
        self._drawn = len(lines)


def _tokens(tokens: object) -> str:
    """Write what was used of models, in and out; nothing where no answer said."""
    if not isinstance(tokens, dict) or not tokens.get("answers"):
        return ""
    return f"{tokens.get('input_tokens')}+{tokens.get('output_tokens')}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)
