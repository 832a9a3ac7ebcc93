"""What ``start`` and ``resume`` share: plan, preflight, question, session."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, TextIO

import click

from bot_bottle.cli import complete, terminal
from bot_bottle.errors import UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bot_bottle.attach.background import Background
    from bot_bottle.backend.base import BottleBackend
    from bot_bottle.backend.launch import SessionEnd
    from bot_bottle.backend.plan import BottlePlan, BottleSpec
    from bot_bottle.cli.task import Unattended
    from bot_bottle.operator_config import OperatorConfig

#: The variable that makes every ``start`` a dry run.
DRY_RUN_ENV = "BOT_BOTTLE_DRY_RUN"

backend_option = click.option(
    "--backend",
    default="",
    metavar="NAME",
    shell_complete=complete.backends,
    help="What isolates (default: what works here).",
)


def launch(
    spec: BottleSpec,
    backend: BottleBackend,
    config: OperatorConfig,
    *,
    why: str,
    yes: bool,
    dry_run: bool = False,
    unattended: Unattended,
    background: Background | None = None,
) -> int:
    """Plan, show, ask and run; gives the agent's exit code (0 for a dry run, 1 for a no).

    With ``unattended.as_json`` stdout gets one object on how the session ended, and the agent's own output
    goes to stderr. With ``background`` it is left alone once its agent runs.
    """
    from bot_bottle.backend.launch import run_session  # noqa: PLC0415 - `--help` must stay light
    from bot_bottle.backend.prepare import (  # noqa: PLC0415
        prepare_plan,
        with_answers,
        with_terminal_type,
    )
    from bot_bottle.preflight import print_preflight  # noqa: PLC0415

    plan = prepare_plan(spec, backend, config, ask=_asked_later(spec, dry_run=dry_run))
    print_preflight(
        plan,
        boundary=backend.boundary,
        why=why,
        upstream_ca=config.upstream_ca,
        file=sys.stdout if dry_run else sys.stderr,
    )
    if spec.identity:
        _show_changes(plan, sys.stdout if dry_run else sys.stderr)
    if dry_run:
        return 0
    if not yes and not terminal.confirm("Start this bottle?"):
        terminal.say(["bot-bottle: nothing was started"])
        return 1
    plan = with_answers(plan, terminal.ask_secret)
    tty = not spec.headless and (background is not None or terminal.owns_terminal())
    if background is not None:
        plan = with_terminal_type(plan)

    def session() -> SessionEnd:
        terminal.end_in_order_on_signals()
        if background is not None:
            background.leave()
        elif spec.headless:
            terminal.leave_input()
        return run_session(plan, tty=tty, timeout=unattended.timeout, backend=backend, background=background)

    if unattended.as_json and background is None:
        from bot_bottle.cli.result import run_and_report  # noqa: PLC0415

        return run_and_report(plan, session).exit_code
    return session().exit_code


@contextlib.contextmanager
def ahead(backend: BottleBackend, *, dry_run: bool) -> Iterator[None]:
    """Let ``backend`` begin its part while the body reads manifests; what no launch took over ends here."""
    if dry_run:
        yield
        return
    backend.begin_ahead()
    try:
        yield
    finally:
        backend.end_ahead()


def _show_changes(plan: BottlePlan, file: TextIO) -> None:
    """Show what of the manifest is another than in the bottle's last session, before any of it holds."""
    from bot_bottle.declared import since_last_session  # noqa: PLC0415 - only what is resumed has a last one

    lines = since_last_session(plan)
    if lines:
        print("\nchanged since this bottle last ran, and holding from now on:", file=file)
    for line in lines:
        print(f"  {legible(line)}", file=file)
    file.flush()


def go_on_as_two(unattended: Unattended, *, dry_run: bool) -> Background | int | None:
    """Go on as two processes where a launch is to be detached; the one in front waits and gets a code."""
    if not unattended.detach or dry_run:
        return None
    from bot_bottle.attach.background import Background, split  # noqa: PLC0415 - as above

    found = split()
    if isinstance(found, Background):
        return found
    return found.exit_code if found.report is None else _tell(found.report, as_json=unattended.as_json)


def _tell(report: Mapping[str, str], *, as_json: bool) -> int:
    """Say what runs in the background now: its identity alone on stdout, for scripts."""
    if as_json:
        from bot_bottle.cli.output import print_json  # noqa: PLC0415 - as above

        print_json(report)
        return 0
    identity = report["identity"]
    words = f"{identity} runs without this terminal; join one to it: bot-bottle attach {identity}"
    terminal.say([f"bot-bottle: {words}; end it: bot-bottle stop {identity}"])
    print(identity)
    return 0


def require_answer(*, yes: bool, dry_run: bool) -> None:
    """Raise ``UsageError`` where the operator would have to be asked and there is nobody to answer."""
    if not yes and not dry_run and not terminal.is_interactive():
        raise UsageError("there is no terminal to ask on; pass --yes to start without being asked")


def wants_dry_run(*, flag: bool) -> bool:
    """Tell whether this is a dry run, by flag or by variable."""
    return flag or os.environ.get(DRY_RUN_ENV, "") not in {"", "0"}


def _asked_later(spec: BottleSpec, *, dry_run: bool) -> Callable[[str, str], str] | None:
    """Give a stand-in for prompted values, which are asked for after the yes; None where nobody could be."""
    if not dry_run and (spec.headless or not terminal.is_interactive()):
        return None
    return lambda _name, _message: ""
