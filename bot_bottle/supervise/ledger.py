"""The requests of one bottle: which are open, how each was answered, and how many there may be. Pure.

An agent can ask as often as it likes and gets no further: what it asks twice is one request, what is open
is bounded, and so are the pace and the number over the bottle's whole life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from bot_bottle.supervise.request import AgentRequest, RequestError, read_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bot_bottle.supervise.request import Kind

Verdict: TypeAlias = Literal["approved", "changed", "denied"]
VERDICTS: tuple[Verdict, ...] = ("approved", "changed", "denied")

MAX_OPEN = 16
MAX_REQUESTS = 500
#: At most so many new requests within so many seconds.
PACE = 12
PACE_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a human answered: ``words`` for the agent, ``terms`` that say what holds from now on."""

    verdict: Verdict
    words: str = ""
    terms: str = ""


class Ledger:
    """What was asked and answered; times are given by the caller, in seconds since the epoch."""

    def __init__(
        self, requests: Iterable[AgentRequest] = (), answers: Mapping[str, Answer] | None = None
    ) -> None:
        """Go on with ``requests`` and ``answers`` of an earlier session."""
        self._requests = {request.id: request for request in requests}
        self._answers = dict(answers or {})
        self._times: list[int] = []

    @property
    def open(self) -> tuple[AgentRequest, ...]:
        """Those nobody has answered yet, the oldest first."""
        return tuple(one for one in self._requests.values() if one.id not in self._answers)

    def get(self, request_id: str) -> AgentRequest | None:
        """Give the request of that id."""
        return self._requests.get(request_id)

    def answer_to(self, request_id: str) -> Answer | None:
        """Give the answer to a request; None while it is open or where there is no such request."""
        return self._answers.get(request_id)

    def ask(
        self,
        kind: Kind,
        arguments: Mapping[str, object],
        *,
        new_id: str,
        now: int,
        holds: Callable[[str], bool] = lambda _id: False,
    ) -> tuple[AgentRequest, bool]:
        """Take a request; gives it, and whether it is a new one.

        ``holds`` tells whether what a request was granted still holds: nobody is asked for that again.
        Raises :class:`RequestError` for what cannot be asked and for one too many.
        """
        asked = read_request(kind, arguments, new_id=new_id, now=now)
        held = self.granted(asked, holds)
        return (held, False) if held is not None else self.add(asked, now)

    def refused(self, asked: AgentRequest) -> bool:
        """Tell whether a human said no to the same before."""
        answers = self._answers
        return any(
            one.subject == asked.subject and one.id in answers and answers[one.id].verdict == "denied"
            for one in self._requests.values()
        )

    def granted(self, asked: AgentRequest, holds: Callable[[str], bool]) -> AgentRequest | None:
        """Give the earlier request for the same that was approved as it was asked, and still ``holds``."""
        approved = (
            one
            for one in self._requests.values()
            if one.id in self._answers and self._answers[one.id].verdict == "approved"
        )
        return next((one for one in approved if one.subject == asked.subject and holds(one.id)), None)

    def add(self, asked: AgentRequest, now: int) -> tuple[AgentRequest, bool]:
        """Take a request that was read; as :meth:`ask`."""
        for one in self.open:
            if one.subject == asked.subject:
                return one, False
        self._bound(now)
        self._requests[asked.id] = asked
        self._times.append(now)
        return asked, True

    def forget(self, request_id: str) -> None:
        """Take a request back that could not be put on record."""
        self._requests.pop(request_id, None)

    def answer(self, request_id: str, answer: Answer) -> AgentRequest:
        """Close a request; raises :class:`RequestError` where it is not open."""
        request = self._requests.get(request_id)
        if request is None:
            raise RequestError(f"there is no request {request_id}")
        if request_id in self._answers:
            raise RequestError(f"request {request_id} is {self._answers[request_id].verdict} already")
        self._answers[request_id] = answer
        return request

    def _bound(self, now: int) -> None:
        if len(self.open) >= MAX_OPEN:
            raise RequestError(f"{MAX_OPEN} requests are open; wait until a human has answered some of them")
        if len(self._requests) >= MAX_REQUESTS:
            raise RequestError(f"this bottle has made {MAX_REQUESTS} requests; it can make no more")
        self._times = [time for time in self._times if 0 <= now - time < PACE_SECONDS]
        if len(self._times) >= PACE:
            raise RequestError(f"at most {PACE} requests in {PACE_SECONDS} seconds; ask again later")
