"""``--json`` of a headless run: the agent's output goes to stderr, and stdout holds one object at the end."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from bot_bottle import audit_reading, bottle_state
from bot_bottle.cli.output import print_json
from bot_bottle.errors import BotBottleError
from bot_bottle.session_result import Decided, SessionResult, decided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bot_bottle.backend.launch import SessionEnd
    from bot_bottle.backend.plan import BottlePlan
    from bot_bottle.session_result import Ending

_EXIT_UNEXPECTED = 70
_EXIT_INTERRUPTED = 130
_STDOUT, _STDERR = 1, 2


def run_and_report(plan: BottlePlan, session: Callable[[], SessionEnd]) -> SessionEnd:
    """Run ``session`` and print its :class:`SessionResult` whatever comes of it.

    What ``session`` raises is raised again after that.
    """
    began, started_at, log_began = time.monotonic(), bottle_state.utc_now(), _size(plan.audit_path)

    def report(ending: Ending, exit_code: int, error: str = "") -> None:
        kept = _kept_at(plan.identity)
        result = SessionResult(
            identity=plan.identity,
            agent=plan.spec.agent_name,
            bottle=plan.bottle.name,
            backend=plan.backend_name,
            exit_code=exit_code,
            ending=ending,
            started_at=started_at,
            duration=time.monotonic() - began,
            audit_log=str(plan.audit_path),
            preserved=kept is not None,
            workspace=kept or "",
            error=error,
            decided=_decided(plan.audit_path, log_began),
        )
        print_json(result.to_json())

    try:
        with _stdout_on_stderr():
            end = session()
    except SystemExit as error:  # how SIGTERM and SIGHUP end a session in order
        report("signal", error.code if isinstance(error.code, int) else 1)
        raise
    except KeyboardInterrupt:
        report("signal", _EXIT_INTERRUPTED)
        raise
    except BotBottleError as error:
        report("error", error.exit_code, str(error))
        raise
    except BaseException as error:
        # Its text is left out, as everywhere: it may quote a credential.
        report("error", _EXIT_UNEXPECTED, f"unexpected {type(error).__name__}")
        raise
    report("timeout" if end.timed_out else "agent", end.exit_code)
    return end


@contextlib.contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Let everything written to stdout meanwhile, by whatever process, go to stderr."""
    sys.stdout.flush()
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # closed before the start (`>&-`): there is nothing to keep apart
        yield
        return
    try:
        try:
            os.dup2(_STDERR, _STDOUT)
        except OSError:  # `2>&-`
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, _STDOUT)
            os.close(sink)
        yield
        sys.stdout.flush()
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)


def _size(path: Path) -> int:
    """Give how long the record is already, in bytes: a resumed bottle's goes on in the same file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _decided(path: Path, log_began: int) -> Decided:
    try:
        return decided(audit_reading.read_records(path, offset=log_began))
    except OSError:  # a launch that failed before its sidecar was up has no record
        return Decided()


def _kept_at(identity: str) -> str | None:
    """Give where a bottle's work is kept (``""``: in a place that cannot be named), None where it is not."""
    from bot_bottle.backend.registry import get_bottle_backend  # noqa: PLC0415

    with contextlib.suppress(OSError, BotBottleError):
        metadata = bottle_state.read_metadata(identity)
        if metadata is None or not bottle_state.is_preserved(identity):
            return None
        with contextlib.suppress(OSError, BotBottleError):
            return get_bottle_backend(metadata.backend).kept_at(identity) if metadata.backend else ""
        return ""
    return None
