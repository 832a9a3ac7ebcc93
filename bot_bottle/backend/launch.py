"""One session from plan to settled state, the same for every backend."""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from bot_bottle import bottle_state
from bot_bottle.attach.output import CURRENT
from bot_bottle.attach.terminal import window_size
from bot_bottle.backend.prepare import metadata_for
from bot_bottle.backend.provision import clone_repository, provision
from bot_bottle.backend.registry import get_bottle_backend, known_backend_names
from bot_bottle.backend.util import log_ca_fingerprint, select_ca_cert
from bot_bottle.control_client import note_session
from bot_bottle.declared import write_declared
from bot_bottle.errors import BotBottleError, LaunchError, UsageError
from bot_bottle.refused_credentials import refused_since_start, sentences
from bot_bottle.unreachable import unreachable_sentences, unreachable_since_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from bot_bottle.attach.background import Background
    from bot_bottle.attach.console import Console
    from bot_bottle.backend.base import Bottle, BottleBackend
    from bot_bottle.backend.plan import BottlePlan

#: An exit code of 128 + N says that signal N ended it.
_SIGNALLED = 128
#: What a session ends with whose time was up, as timeout(1) has it.
EXIT_TIMEOUT = 124


@contextmanager
def launch_bottle(
    plan: BottlePlan,
    backend: BottleBackend | None = None,
    *,
    afterwards: Callable[[BaseException | None], None] = lambda _error: None,
) -> Iterator[Bottle]:
    """Bring a bottle up with everything placed in it, yield it, take it down again.

    ``backend`` is the one that made the plan, where it is at hand: it has its engine's ear already.

    The identity's lock is held throughout. A new launch whose bring-up fails leaves no state behind; once
    the bottle is up its state is marked as preserved, and stays so until :func:`settle` removes it.
    ``afterwards`` is called once all is taken down, with what ended the session if that was an exception, and
    the lock still held: who waits for that finds a settled state.

    Raises ``LaunchError`` with the kernel's own words where the bring-up cannot write (a full disk).
    """
    up, resumed = False, bool(plan.spec.identity)
    backend = backend or get_bottle_backend(plan.backend_name)
    try:
        backend.build(plan)
    except BaseException:
        discard(plan, backend)
        raise
    if not resumed and not plan.state_dir.exists():
        bottle_state.create_state(metadata_for(plan))
    try:
        with (
            bottle_state.hold_lock(plan.identity),
            _followed_by(afterwards),
            backend.launch(plan) as bottle,
        ):
            if resumed:  # what an earlier session left in its home is let near nothing before that
                bottle.await_ready()
            provision(bottle, plan, resumed=resumed, placed=bottle.provisioned)
            bottle.await_ready()
            clone_repository(bottle, plan, resumed=resumed)
            log_ca_fingerprint(*select_ca_cert(plan))
            write_declared(plan)
            if resumed:
                _note_begin(plan.identity)
            bottle_state.mark_preserved(plan.identity)
            up = True
            with _renewing(plan), _announcing(plan):
                yield bottle
    except BaseException as error:
        discard(plan, backend)
        if up or not isinstance(error, OSError):
            raise
        place = error.filename or plan.state_dir
        raise LaunchError(
            f"the bottle could not be brought up: {place}: {error.strerror or error}"
        ) from error


@contextmanager
def _followed_by(afterwards: Callable[[BaseException | None], None]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        afterwards(error)
        raise
    afterwards(None)


def _renewing(plan: BottlePlan) -> AbstractContextManager[object]:
    """Keep the bottle's credentials good while the body runs; nothing where none can be had anew."""
    if not plan.provision.renewals:
        return nullcontext()
    from bot_bottle.renewal import Renewer  # noqa: PLC0415 - few bottles have any

    return Renewer(plan.identity, plan.provision.renewals)


def _announcing(plan: BottlePlan) -> AbstractContextManager[object]:
    """Tell the operator of what the agent asks for while the body runs, where they want to be told."""
    if not plan.on_request and not plan.notify:
        return nullcontext()
    from bot_bottle.announce import announcer_for  # noqa: PLC0415 - few operators have any

    return announcer_for(plan)


def discard(plan: BottlePlan, backend: BottleBackend | None = None) -> None:
    """Forget a new launch that came to nothing; what holds work, or was resumed, stays.

    Raises nothing: what cannot be removed is still listed, and the error that led here is the one to show.
    """
    with suppress(OSError, BotBottleError):
        if not plan.spec.identity and not bottle_state.is_preserved(plan.identity):
            (backend or get_bottle_backend(plan.backend_name)).forget(plan.identity)
            bottle_state.cleanup_state(plan.identity)


def remove_bottle(identity: str, backend: BottleBackend | None = None) -> None:
    """Remove a bottle that nothing runs in: what its backend keeps of it, then its state folder.

    ``backend`` is its own, where it is at hand.

    Raises ``BotBottleError`` or ``OSError``; the state folder is then still there to try again from.
    """
    try:
        metadata = bottle_state.read_metadata(identity)
    except (UsageError, OSError):
        metadata = None
        _forget_everywhere(identity)
    # Killed on the way, what is left is half a bottle: for cleanup to remove, and for nobody to go on with.
    bottle_state.clear_preserve_marker(identity)
    # Metadata older than its backend field belongs to launches that kept all they had in the state folder.
    if metadata is not None and metadata.backend:
        (backend or get_bottle_backend(metadata.backend)).forget(identity)
    bottle_state.cleanup_state(identity)


def _forget_everywhere(identity: str) -> None:
    """Have every backend remove what it keeps of a bottle whose state does not say whose it was.

    One that cannot now lists it as left over once the state is gone, for ``cleanup`` to remove.
    """
    for name in known_backend_names():
        with suppress(BotBottleError, OSError):
            get_bottle_backend(name).forget(identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """How a session ended: with the agent's own exit code, or with 124 where its time was up."""

    exit_code: int
    timed_out: bool = False


def run_session(
    plan: BottlePlan,
    *,
    tty: bool,
    timeout: float | None = None,
    backend: BottleBackend | None = None,
    background: Background | None = None,
) -> SessionEnd:
    """Run the agent once and settle; ``backend`` is :func:`launch_bottle`'s.

    ``tty`` attaches the operator's terminal, or, with ``background``, one that is held here and told of there
    once the agent runs. Ctrl-C while the bottle comes up leaves nothing behind; once the agent runs, it
    belongs to the agent. After ``timeout`` seconds the agent and all that it started are killed, and its work
    is kept; only the main thread can be told so.
    """
    started = timed_out = False
    exit_code, words = 0, ""

    def afterwards(error: BaseException | None) -> None:
        if error is None:
            settle(plan.identity, exit_code, keep=plan.spec.keep, backend=backend, words=words)
        elif started:
            _note_end(plan.identity, None, _cut_short(error))
            _say_resume(plan.identity, "the session was cut short")
        if started:
            _say_refused(plan)

    with launch_bottle(plan, backend, afterwards=afterwards) as bottle:
        started = True
        with _noting_the_end(plan.identity) as note, _console(plan, tty, background) as side:
            try:
                with _alarm(timeout):
                    exit_code = bottle.exec_agent(plan.provision.argv, tty=tty, side=side)
            except _TimeIsUpError:
                exit_code, timed_out = EXIT_TIMEOUT, True
                words = f"the agent was ended after {timeout:g} s (--timeout)"
            if side is not None:
                side.ended(exit_code)
            note("timed out" if timed_out else "ended", exit_code)
    return SessionEnd(exit_code=exit_code, timed_out=timed_out)


def _console(
    plan: BottlePlan,
    tty: bool,  # noqa: FBT001 - one place calls it
    background: Background | None,
) -> AbstractContextManager[Console | None]:
    """Give what a detached agent is shown on; None for one on the operator's own terminal."""
    if background is None:
        return nullcontext()
    from bot_bottle.attach.console import Console  # noqa: PLC0415 - most sessions have a terminal

    report = {
        "identity": plan.identity,
        "agent": plan.spec.agent_name,
        "bottle": plan.bottle.name,
        "backend": plan.backend_name,
        "output": str(plan.state_dir / CURRENT),
    }
    return Console(
        plan.state_dir,
        terminal=tty,
        size=window_size(),
        begun=lambda: background.up(plan.state_dir, report),
    )


def _cut_short(error: BaseException) -> str:
    """Say how a session ended that its agent did not end; what is unexpected may quote a credential."""
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > _SIGNALLED:
        return f"the session was ended by {signal.Signals(error.code - _SIGNALLED).name}"
    if isinstance(error, KeyboardInterrupt):
        return "the session was ended by Ctrl-C"
    if isinstance(error, BotBottleError):
        return f"the session was cut short: {error}"
    return f"the session was cut short by an unexpected {type(error).__name__}"


class _TimeIsUpError(BaseException):
    """Raised in the main thread by the alarm; no ``except Exception`` on the way may hold it up."""


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _TimeIsUpError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def settle(
    identity: str,
    exit_code: int,
    *,
    keep: bool = False,
    backend: BottleBackend | None = None,
    words: str = "",
) -> None:
    """Remove the state after exit code 0 unless told to ``keep`` it; after any other say how to go on.

    ``words`` say how the agent came to its end, where that was not its own doing. The agent's end stands
    whatever becomes of its state: what cannot be removed or recorded is said.
    """
    words = words or f"the agent ended with exit code {exit_code}"
    if exit_code == 0 and not keep:
        try:
            remove_bottle(identity, backend)
        except (OSError, BotBottleError) as error:
            _say(f"not all of {identity} could be removed ({error}). Try: bot-bottle cleanup {identity}")
        else:
            _say(f"{words}; its home and workspace were removed (--keep keeps them)")
        return
    _note_end(identity, exit_code, words)
    _say_resume(identity, words)


@contextmanager
def _noting_the_end(identity: str) -> Iterator[Callable[[str, int], None]]:
    """Give what puts the session's end on the bottle's record; one that is cut short is put there too."""
    try:
        yield partial(note_session, identity)
    except BaseException:
        note_session(identity, "ended")
        raise


def _note_begin(identity: str) -> None:
    """Let what is recorded of a resumed bottle be of this session, and not of the one before."""
    metadata = bottle_state.read_metadata(identity)
    if metadata is not None:
        begun = replace(metadata, started_at=bottle_state.utc_now(), exit_code=None, ended="")
        bottle_state.write_metadata(begun)


def _note_end(identity: str, exit_code: int | None, words: str) -> None:
    """Keep how a session ended, for who looks later."""
    try:
        metadata = bottle_state.read_metadata(identity)
        if metadata is not None:
            bottle_state.write_metadata(replace(metadata, exit_code=exit_code, ended=words))
    except (OSError, UsageError) as error:
        _say(f"the exit code could not be recorded: {error}")


def _say_resume(identity: str, what: str) -> None:
    _say(
        f"{what}; its home and workspace are kept{_where(identity)}. See the work: bot-bottle diff "
        f"{identity}; bring it home: bot-bottle pull {identity} (--uncommitted: also what is in no commit"
        f"{_stashed(identity)}); "
        f"go on with: bot-bottle resume {identity}"
    )


def _stashed(identity: str) -> str:
    """Say how to bring what stands in git's stash, where the workspace is a folder of this machine."""
    from bot_bottle.retrieval.tree import FolderTree  # noqa: PLC0415 - at the end of a session alone

    with suppress(OSError, BotBottleError):
        place = bottle_state.bottle_state_dir(identity) / "workspace"
        if place.is_dir():
            with FolderTree(place) as tree:
                if tree.kind(b".git/logs/refs/stash") == "file":
                    return "; --from 'stash@{0}': what it put into git's stash"
    return ""


def _say_refused(plan: BottlePlan) -> None:
    """Tell of credentials that servers refused, and of hosts never met: an agent may say nothing of it."""
    status = "preserved" if bottle_state.is_preserved(plan.identity) else ""
    for sentence in sentences(refused_since_start(plan.audit_path), plan.identity, status=status):
        _say(sentence)
    for sentence in unreachable_sentences(unreachable_since_start(plan.audit_path), plan.identity):
        _say(sentence)


def _where(identity: str) -> str:
    """Name the place of a kept workspace, where its backend can."""
    with suppress(OSError, BotBottleError):
        metadata = bottle_state.read_metadata(identity)
        if metadata is not None and metadata.backend:
            return f" ({get_bottle_backend(metadata.backend).kept_at(identity)})"
    return ""


def _say(text: str) -> None:
    print(f"bot-bottle: {text}", file=sys.stderr)
