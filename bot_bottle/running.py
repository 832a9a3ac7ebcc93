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
    from collections.abc import Callable, Sequence

    from bot_bottle.backend.base import BottleBackend

#: A sidecar that does not answer by then is told of; a healthy one needs a few milliseconds.
_SECONDS = 5.0
_AGAIN_SECONDS = 0.05
#: How long a listing waits for what all sidecars say together: it is to tell of one that hangs, too.
_LIST_SECONDS = 1.0
#: How many agents are held still at the same time.
_AT_ONCE = 8


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
    states = {one.identity: one.status for one in bottle_state.list_states()}
    running = tuple(identity for identity, status in states.items() if status == "running")
    for identity in named:
        if identity not in running:
            known = identity in states
            raise UsageError(bottle_state.not_running(identity) if known else bottle_state.no_state(identity))
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


def cut_off(identities: Sequence[str]) -> dict[str, bool | None]:
    """Say of each running bottle whether ``panic`` holds it; ``None`` where its sidecar does not say."""
    found: dict[str, bool | None] = dict.fromkeys(identities)
    deadline = time.monotonic() + _LIST_SECONDS
    with contextlib.ExitStack() as stack:
        asked: list[ControlClient] = []
        for identity in identities:
            with contextlib.suppress(LaunchError):
                client = stack.enter_context(ControlClient.connect(identity, _LIST_SECONDS))
                client.send({"order": "status"})
                asked.append(client)
        for client in asked:
            client.patience(max(0.01, deadline - time.monotonic()))
            with contextlib.suppress(LaunchError):
                found[client.identity] = client.answer().get("halted") is True
    return found


def freeze_all(identities: Sequence[str]) -> tuple[str, ...]:
    """Hold the agents of ``identities`` still, where their backends can; gives those that are."""
    held = _of_each(identities, lambda backend, identity, launcher: backend.freeze(identity, launcher))
    return tuple(identity for identity, frozen in zip(identities, held, strict=True) if frozen)


def thaw_all(identities: Sequence[str]) -> tuple[str, ...]:
    """Let the agents of ``identities`` go on; gives those that could not be let."""

    def thaw(backend: BottleBackend, identity: str, launcher: int) -> bool:
        backend.thaw(identity, launcher)
        return True

    done = _of_each(identities, thaw)
    return tuple(identity for identity, thawed in zip(identities, done, strict=True) if not thawed)


def _of_each(identities: Sequence[str], order: Callable[[BottleBackend, str, int], bool]) -> tuple[bool, ...]:
    """Give an order to the backends of all ``identities`` side by side: an engine takes its time for each."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - after the network is cut

    from bot_bottle.backend.registry import get_bottle_backend  # noqa: PLC0415

    def give(identity: str) -> bool:
        with contextlib.suppress(BotBottleError, OSError):
            metadata = bottle_state.read_metadata(identity)
            launcher = bottle_state.launcher_of(identity)
            if metadata is not None and metadata.backend and launcher is not None:
                # One for each: an engine's connection is not for two threads.
                return order(get_bottle_backend(metadata.backend), identity, launcher)
        return False

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(pool.map(give, identities))


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
