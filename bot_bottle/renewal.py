"""Credentials that end while a bottle runs: looked up again on this host, and handed to the sidecar.

A thread of the launcher asks the credential's source shortly before its end and brings what is new to the
sidecar through its control socket. Nothing of it happens in the bottle, and nothing here logs anybody in: who
renews is the source, a command of the operator's or the program's own login on this host.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self, TypeAlias

from bot_bottle.control_client import ControlClient
from bot_bottle.errors import BotBottleError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot_bottle.secret import Secret

#: Seconds before its end at which a credential is looked up again.
MARGIN = 600.0
#: How often one is looked up that does not say when it ends, in seconds.
EVERY = 900.0
#: How long to wait after a look that brought nothing new.
AGAIN = 60.0
_LEAST = 5.0
_JOIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """A credential as its source gives it; ``ends_at`` in seconds since the epoch, None where unknown."""

    value: Secret
    ends_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """One credential that can be looked up again.

    ``read`` asks its source; it raises ``BotBottleError`` with a sentence for the operator. ``first`` is what
    the bottle was launched with.
    """

    token_ref: str
    first: Fresh = field(repr=False)
    read: Callable[[], Fresh] = field(repr=False)


#: Hands a credential's new value to a bottle's sidecar; raises ``BotBottleError``.
Deliver: TypeAlias = "Callable[[str, str, Secret], None]"


def wait_seconds(ends_at: float | None, now: float) -> float:
    """Say how long to wait for the next look at a credential that ends at ``ends_at``."""
    return EVERY if ends_at is None else max(_LEAST, ends_at - now - MARGIN)


def deliver(identity: str, token_ref: str, value: Secret) -> None:
    """Let the sidecar of ``identity`` use ``value`` from its next request on; the routes stay as they are."""
    with ControlClient.connect(identity) as client:
        routes = client.order("status")["routes"]
        client.order("reload", routes=routes, secrets={token_ref: value.reveal()})


class Renewer:
    """Renews a bottle's credentials while it runs; a context manager around the session."""

    def __init__(
        self,
        identity: str,
        renewals: Sequence[Renewal],
        *,
        hand_over: Deliver = deliver,
        say: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``say`` tells the operator; by default on stderr."""
        self._identity = identity
        self._hand_over = hand_over
        self._say = say or _say
        self._clock = clock
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep, args=(one,), name=f"renewal {one.token_ref}", daemon=True)
            for one in renewals
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def _keep(self, renewal: Renewal) -> None:
        held, told = renewal.first, ""
        pause = wait_seconds(held.ends_at, self._clock())
        while not self._over.wait(pause):
            held, said = self._look(renewal, held)
            if said and said != told:
                self._say(said)
            told = said
            pause = AGAIN if said else wait_seconds(held.ends_at, self._clock())

    def _look(self, renewal: Renewal, held: Fresh) -> tuple[Fresh, str]:
        """Look once; gives what is held from now on, and what the operator should know."""
        name = f"the credential {renewal.token_ref} of {self._identity}"
        try:
            fresh = renewal.read()
            if fresh.value != held.value:
                self._hand_over(self._identity, renewal.token_ref, fresh.value)
                return fresh, ""
        except BotBottleError as error:
            return held, f"{name} could not be renewed: {error}"
        except Exception as error:  # noqa: BLE001 - its text may quote the credential
            return held, f"{name} could not be renewed ({type(error).__name__})"
        if held.ends_at is not None and held.ends_at - self._clock() <= MARGIN:
            when = datetime.fromtimestamp(held.ends_at, UTC).strftime("%Y-%m-%d %H:%M")
            return held, f"{name} is good until {when} UTC only, and nothing has renewed it yet"
        return held, ""


def _say(text: str) -> None:
    print(f"bot-bottle: {text}", file=sys.stderr, flush=True)
