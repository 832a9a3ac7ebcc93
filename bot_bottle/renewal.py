"""Credentials that end while a bottle runs: looked up again on this host, and handed to the sidecar.

A thread of the launcher asks the credential's source shortly before its end and brings what is new to the
sidecar through its control socket. Nothing of it happens in the bottle, and nothing here logs anybody in: who
renews is the source, a command of the operator's or the program's own login on this host.
"""

from __future__ import annotations

import math
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
#: How long to wait after a look that brought nothing new, and once nothing good is left.
AGAIN = 60.0
AGAIN_ENDED = 15.0
_LEAST = 5.0
#: How often the clock is looked at meanwhile: it may be set, and the machine may sleep.
_LOOK = 20.0
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
    the bottle was launched with. ``every`` is how often a source is asked that does not say when it ends, in
    seconds; None for :data:`EVERY`.
    """

    token_ref: str
    first: Fresh = field(repr=False)
    read: Callable[[], Fresh] = field(repr=False)
    every: float | None = None


#: Tells a bottle's sidecar a credential's new value, None where it has ended; raises ``BotBottleError``.
Deliver: TypeAlias = "Callable[[str, str, Secret | None], None]"


def wait_seconds(ends_at: float | None, now: float, every: float | None = None) -> float:
    """Say how long to wait for the next look at a credential that ends at ``ends_at``."""
    return (every or EVERY) if ends_at is None else max(_LEAST, ends_at - now - MARGIN)


def deliver(identity: str, token_ref: str, value: Secret | None) -> None:
    """Let the sidecar of ``identity`` use ``value`` from its next request on; the routes stay as they are.

    Without a value it refuses what needs the credential.
    """
    with ControlClient.connect(identity) as client:
        if value is None:
            client.order("expire", credentials=[token_ref])
        else:
            client.order("renew", secrets={token_ref: value.reveal()})


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

    def _rest(self, seconds: float) -> bool:
        """Wait for so long; tells whether the session is over.

        What a clock that was set forward, or a machine that slept, went past is not waited for.
        """
        due, steady_due = self._clock() + seconds, time.monotonic() + seconds
        while (left := min(due - self._clock(), steady_due - time.monotonic())) > 0:
            if self._over.wait(min(left, _LOOK)):
                return True
        return self._over.is_set()

    def _keep(self, renewal: Renewal) -> None:
        held, told, ended = renewal.first, "", False
        pause = wait_seconds(held.ends_at, self._clock(), renewal.every)
        while not self._rest(pause):
            fresh, said = self._look(renewal, held)
            if fresh is not held:
                held, ended = fresh, False
            if said and said != told:
                self._say(said)
            told = said
            left = math.inf if held.ends_at is None else held.ends_at - self._clock()
            if said and left <= 0 and not ended:
                ended = self._end(renewal)
            elif ended and left > 0:  # the clock went past its end, and was set right again
                ended = not self._again(renewal, held)
            if said:  # and at its end, which is when the agent is told
                often = renewal.every or math.inf
                pause = min(AGAIN, often, left + 0.1) if left > 0 else min(AGAIN_ENDED, often)
            else:
                pause = wait_seconds(held.ends_at, self._clock(), renewal.every)

    def _end(self, renewal: Renewal) -> bool:
        """Have the sidecar refuse what needs a credential that has ended; tells whether it does."""
        name = f"the credential {renewal.token_ref} of {self._identity}"
        try:
            self._hand_over(self._identity, renewal.token_ref, None)
        except BotBottleError as error:
            self._say(f"{name} has ended, and its sidecar could not be told: {error}")
            return False
        self._say(f"{name} has ended: what needs it is refused until its source has a newer one")
        return True

    def _again(self, renewal: Renewal, held: Fresh) -> bool:
        """Have the sidecar use a credential again that has not ended after all; tells whether it does."""
        try:
            self._hand_over(self._identity, renewal.token_ref, held.value)
        except BotBottleError:
            return False
        self._say(f"the credential {renewal.token_ref} of {self._identity} is good still: it is used again")
        return True

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
