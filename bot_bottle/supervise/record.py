"""Requests and answers as the audit log holds them: what was asked, what was decided, what still holds.

The log is their only store, so what a human saw, what was recorded and what applies after a ``resume`` can
never differ. The sidecar alone writes it; no bottle reaches it.
"""

from __future__ import annotations

import json
import mmap
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from bot_bottle.audit_chain import parse
from bot_bottle.supervise.grant import Grant
from bot_bottle.supervise.ledger import VERDICTS, Answer
from bot_bottle.supervise.push_grant import PushGrant
from bot_bottle.supervise.request import AgentRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from bot_bottle.audit import AuditValue

ASKED: Final = "asked"
ANSWERED: Final = "answered"
USED: Final = "used"
_PANIC: Final = "panic"
_MARKS = (b'"event":"asked"', b'"event":"answered"', b'"event":"used"', b'"event":"panic"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """All of one bottle: requests in the order they came, answers by id, grants whether they hold or not.

    ``pushes`` are the grants for the git gate.
    """

    requests: tuple[AgentRequest, ...] = ()
    answers: Mapping[str, Answer]
    grants: tuple[Grant, ...] = ()
    pushes: tuple[PushGrant, ...] = ()

    def to_wire(self) -> dict[str, object]:
        """Give the JSON form for the sidecar's config."""
        return {
            "requests": [one.to_record() for one in self.requests],
            "answers": {one: [a.verdict, a.words, a.terms] for one, a in self.answers.items()},
            "grants": [grant.to_wire() for grant in self.grants],
            "pushes": [grant.to_wire() for grant in self.pushes],
        }

    @classmethod
    def from_wire(cls, obj: Mapping[str, Any]) -> Past:
        """Read what :meth:`to_wire` wrote; raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        return cls(
            requests=tuple(AgentRequest.from_record(one) for one in obj["requests"]),
            answers={
                one: Answer(verdict=verdict, words=words, terms=terms)
                for one, (verdict, words, terms) in obj["answers"].items()
            },
            grants=tuple(Grant.from_wire(one) for one in obj["grants"]),
            pushes=tuple(PushGrant.from_wire(one) for one in obj["pushes"]),
        )

    @property
    def open(self) -> tuple[AgentRequest, ...]:
        """Those nobody has answered."""
        return tuple(one for one in self.requests if one.id not in self.answers)


def read_grant(obj: Mapping[str, object]) -> Grant | PushGrant:
    """Read a grant of either kind; raises ``KeyError``, ``TypeError`` or ``ValueError``."""
    return PushGrant.from_wire(obj) if "push" in obj else Grant.from_wire(obj)


def answer_record(request: str, answer: Answer, grant: Grant | PushGrant | None) -> dict[str, AuditValue]:
    """Give the fields of the audit log's ``answered`` event."""
    return {
        "request": request,
        "verdict": answer.verdict,
        "words": answer.words,
        "terms": answer.terms,
        "grant": json.dumps(grant.to_wire(), sort_keys=True) if grant else "",
    }


def past_of(records: Iterable[Mapping[str, object]]) -> Past:
    """Fold records of a log, in order; a panic ends what was granted before it.

    What is no request or answer of this version is left out.
    """
    requests: dict[str, AgentRequest] = {}
    answers: dict[str, Answer] = {}
    grants: dict[str, Grant] = {}
    pushes: dict[str, PushGrant] = {}
    for record in records:
        with suppress(KeyError, TypeError, ValueError):
            if record.get("event") == ASKED:
                asked = AgentRequest.from_record(record)
                requests.setdefault(asked.id, asked)
            elif record.get("event") == ANSWERED:
                one, answer, given = _answer(record)
                if one in requests and one not in answers:
                    answers[one] = answer
                    if isinstance(given, Grant):
                        grants[one] = given
                    elif given is not None:
                        pushes[one] = given
            elif record.get("event") == USED:
                used = str(record["request"])
                if used in grants:
                    grants[used] = replace(grants[used], uses=_one_less(grants[used].uses))
                else:
                    pushes[used] = replace(pushes[used], uses=_one_less(pushes[used].uses))
            elif record.get("event") == _PANIC and record["decision"] == "deny":
                grants.clear()
                pushes.clear()
    return Past(
        requests=tuple(requests.values()),
        answers=answers,
        grants=tuple(grants.values()),
        pushes=tuple(pushes.values()),
    )


def _one_less(uses: int | None) -> int | None:
    return None if uses is None else max(0, uses - 1)


def read_past(path: Path) -> Past:
    """Read a log's requests and answers, skipping the rest of it unread; no file is an empty past.

    Raises ``OSError`` where it cannot be read.
    """
    try:
        return past_of(_marked_records(path))
    except FileNotFoundError:
        return past_of(())


def _marked_records(path: Path) -> Iterator[Mapping[str, object]]:
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for start in sorted({start for mark in _MARKS for start in _lines_with(data, mark)}):
                record = parse(data[start : data.find(b"\n", start) + 1])
                if record is not None:
                    yield record


def _lines_with(data: mmap.mmap, mark: bytes) -> Iterator[int]:
    """Give where each line begins that holds ``mark``; quotes in a record's own texts are escaped."""
    found = data.find(mark)
    while found >= 0:
        yield data.rfind(b"\n", 0, found) + 1
        end = data.find(b"\n", found)
        if end < 0:
            return
        found = data.find(mark, end)


def _answer(record: Mapping[str, object]) -> tuple[str, Answer, Grant | PushGrant | None]:
    one, verdict, words, terms, grant = (
        record[name] for name in ("request", "verdict", "words", "terms", "grant")
    )
    texts = (one, words, terms, grant)
    if verdict not in VERDICTS or not all(isinstance(text, str) for text in texts):
        raise ValueError("no answer")
    answer = Answer(verdict=verdict, words=str(words), terms=str(terms))
    return str(one), answer, read_grant(json.loads(str(grant))) if grant else None
