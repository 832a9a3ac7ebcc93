"""The options of an unattended run, the same for every command that starts one; where its task is read."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot_bottle.duration import DAY, read_duration
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The largest task, in bytes; programs read it as one message.
MAX_TASK = 1 << 20
_STDIN = "-"

#: ``setitimer`` takes more, but nobody means more.
_LONGEST = 30 * DAY


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a length of time (``90``, ``90s``, ``30m``, ``2h``, ``1d``), for click; gives seconds."""
    if value is None:
        return None
    try:
        length = read_duration(value, longest=_LONGEST, bare=True)
    except ValueError:
        length = 0.0
    if not length:
        raise click.BadParameter(
            f"{value!r} is no time to wait; write for example 90s, 30m or 2h", ctx, param
        )
    return length


@dataclass(frozen=True, slots=True, kw_only=True)
class Unattended:
    """How a run goes without its operator; ``timeout`` is in seconds.

    ``detach`` says that it goes on without the terminal, headless or not.
    """

    headless: bool
    task: str = field(default="", repr=False)
    timeout: float | None = None
    as_json: bool = False
    detach: bool = False


def headless_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of an unattended run to a command, which gets them as ``unattended``."""

    @functools.wraps(command)
    def with_task(
        *,
        headless: bool,
        prompt: str | None,
        prompt_file: Path | None,
        timeout: float | None,
        as_json: bool,
        detach: bool = False,
        **others: object,
    ) -> int:
        options = {
            "--prompt": prompt is not None,
            "--prompt-file": prompt_file is not None,
            "--timeout": timeout is not None,
            "--json": as_json and not detach,  # which prints what was started
        }
        if not headless:
            _refuse_without_headless(options)
        task = read_task(prompt, prompt_file)
        unattended = Unattended(headless=headless, task=task, timeout=timeout, as_json=as_json, detach=detach)
        return command(unattended=unattended, **others)

    wrapped: Callable[..., int] = with_task
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


_OPTIONS = (
    click.option("--headless", is_flag=True, help="Run unattended, without a terminal."),
    click.option("--prompt", metavar="TEXT", help="The task of a headless run; - reads it from stdin."),
    click.option(
        "--prompt-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Read the task of a headless run from a file.",
    ),
    click.option(
        "--timeout",
        callback=seconds,
        metavar="TIME",
        help="End a headless run after 90s, 30m or 2h with exit code 124.",
    ),
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print one JSON object on how a headless run ended, or on what was detached.",
    ),
)


keep_option = click.option(
    "--keep/--no-keep",
    default=None,
    help="Keep home and workspace after exit code 0 too (default: keep in config.toml, else no).",
)

detach_option = click.option(
    "--detach",
    "-d",
    is_flag=True,
    help="Let it live on without this terminal; `bot-bottle attach` joins one to it.",
)


def read_task(prompt: str | None, prompt_file: Path | None) -> str:
    """Give the task of a headless run, from where it was said to be; ``""`` where none was.

    Raises ``UsageError`` for two tasks, and for one that cannot be read, is empty, is no text or is longer
    than 1 MiB.
    """
    if prompt is not None and prompt_file is not None:
        raise UsageError("--prompt and --prompt-file both give a task; keep one of them")
    if prompt_file is not None:
        return _decoded(_read_file(prompt_file), str(prompt_file))
    if prompt == _STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("--prompt - reads the task from stdin; send it there, or write --prompt TEXT")
        return _decoded(sys.stdin.buffer.read(MAX_TASK + 1), "stdin")
    if prompt is not None and not prompt.strip():
        raise UsageError("the task in --prompt is empty; write what is to be done there")
    return prompt or ""


def _refuse_without_headless(options: Mapping[str, bool]) -> None:
    for option, given in options.items():
        if given:
            why = "; the agent's file holds the prompt of every run" if "prompt" in option else ""
            raise UsageError(f"{option} goes with --headless{why}")


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TASK + 1)
    except OSError as error:
        raise UsageError(f"--prompt-file {path} cannot be read ({error.strerror})") from error


def _decoded(data: bytes, place: str) -> str:
    if len(data) > MAX_TASK:
        raise UsageError(
            f"the task in {place} is longer than {MAX_TASK >> 20} MiB; put what is long in the workspace"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the task in {place} is no UTF-8 text (byte {error.start})") from None
    if not text.strip() or "\0" in text:
        raise UsageError(
            f"the task in {place} is {'no text' if text.strip() else 'empty'}; write what is to be done there"
        )
    return text.rstrip("\n")
