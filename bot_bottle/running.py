"""Orders to many running bottles at once: given to all of them before any answer is waited for."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle import bottle_state
from bot_bottle.control_client import ControlClient, NotReachableError, end_session
from bot_bottle.errors import BotBottleError, LaunchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.backend.base import BottleBackend

#: A sidecar that does not answer by then is told of; a healthy one needs a few milliseconds.
_SECONDS = 5.0
_AGAIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one bottle's order; ``trouble`` is empty where it was carried out.

    ``closed`` counts the connections that were cut.
    """

    identity: str
    closed: int = 0
    trouble: str = ""


def running_identities(named: Sequence[str] = ()) -> tuple[str, ...]:
    """Give the bottles that run, or those of ``named``; raises ``UsageError`` for one that does not."""
    running = tuple(one.identity for one in bottle_state.list_states() if one.status == "running")
    for identity in named:
        if identity not in running:
            known = ", ".join(running) or "none"
            raise UsageError(f"{bottle_state.printable(identity)!r} does not run; those that do: {known}")
    return tuple(dict.fromkeys(named)) or running


def order_all(identities: Sequence[str], name: str) -> tuple[Outcome, ...]:
    """Give one order to each of ``identities``, to all of them before waiting for any.

    One that is only just coming up gets it as soon as it listens.
    """
    outcomes: dict[str, Outcome] = {}
    deadline = time.monotonic() + _SECONDS
    with contextlib.ExitStack() as stack:
        asked: list[ControlClient] = []
        unheard = list(identities)
        while unheard:
            for identity in tuple(unheard):
                try:
                    client = stack.enter_context(ControlClient.connect(identity, _SECONDS))
                    client.send({"order": name})
                except NotReachableError as error:
                    outcomes[identity] = Outcome(identity=identity, trouble=str(error))
                    if error.deserted or not bottle_state.is_running(identity):
                        unheard.remove(identity)
                else:
                    unheard.remove(identity)
                    asked.append(client)
            for client in asked:
                outcomes[client.identity] = _outcome(client, deadline)
            asked.clear()
            if time.monotonic() > deadline:
                break
            if unheard:
                time.sleep(_AGAIN_SECONDS)
    return tuple(outcomes[identity] for identity in identities)


def _outcome(client: ControlClient, deadline: float) -> Outcome:
    client.patience(max(0.1, deadline - time.monotonic()))
    try:
        closed = client.answer().get("closed")
    except LaunchError as error:
        return Outcome(identity=client.identity, trouble=str(error))
    return Outcome(identity=client.identity, closed=closed if isinstance(closed, int) else 0)


def freeze_all(identities: Sequence[str]) -> tuple[str, ...]:
    """Hold the agents of ``identities`` still, where their backends can; gives those that are."""
    frozen = []
    for identity in identities:
        with contextlib.suppress(BotBottleError, OSError):
            backend, launcher = _held_by(identity)
            if backend.freeze(identity, launcher):
                frozen.append(identity)
    return tuple(frozen)


def thaw_all(identities: Sequence[str]) -> None:
    """Let the agents of ``identities`` go on."""
    for identity in identities:
        with contextlib.suppress(BotBottleError, OSError):
            backend, launcher = _held_by(identity)
            backend.thaw(identity, launcher)


def _held_by(identity: str) -> tuple[BottleBackend, int]:
    """Give a running bottle's backend and launcher; raises ``BotBottleError`` or ``OSError``."""
    from bot_bottle.backend.registry import get_bottle_backend  # noqa: PLC0415 - after the network is cut

    metadata, launcher = bottle_state.read_metadata(identity), bottle_state.launcher_of(identity)
    if metadata is None or not metadata.backend or launcher is None:
        raise LaunchError(f"it is not known who runs {identity}")
    return get_bottle_backend(metadata.backend), launcher


def end_all(identities: Sequence[str]) -> tuple[Outcome, ...]:
    """Tell the launcher of each of ``identities`` to end its session; waits for none."""
    outcomes = []
    for identity in identities:
        try:
            end_session(identity)
        except (LaunchError, OSError) as error:
            outcomes.append(Outcome(identity=identity, trouble=str(error)))
        else:
            outcomes.append(Outcome(identity=identity))
    return tuple(outcomes)
