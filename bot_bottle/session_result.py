"""What one session came to, for programs: how it ended, what its bottle asked for, what is kept of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bot_bottle.refused_credentials import RefusedCredentials
from bot_bottle.usage import UsedByModel, usage_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: How many kinds of refusal are listed by themselves; the counts hold all of them.
MAX_DENIALS = 50

#: What ended a session: the agent itself, ``--timeout``, a signal, or a failure around it.
Ending = Literal["agent", "timeout", "signal", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One push that the git gate decided: ``refs`` as the record has them, ``taken`` by the upstream."""

    remote: str
    refs: tuple[str, ...]
    decision: str
    reason: str = ""
    taken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a session's part of the record says.

    ``failed`` counts requests that were allowed and met no upstream. ``denials`` are (host, reason, how
    often), the most frequent first. ``used`` is what answers said they used of a model, ``refused`` the
    credentials that servers refused.
    """

    allowed: int = 0
    denied: int = 0
    failed: int = 0
    denials: tuple[tuple[str, str, int], ...] = ()
    pushes: tuple[Push, ...] = ()
    used: UsedByModel = field(default_factory=UsedByModel)
    refused: RefusedCredentials = field(default_factory=RefusedCredentials)


def decided(records: Iterable[Mapping[str, object]]) -> Decided:
    """Sum up audit records, as :func:`bot_bottle.audit_reading.read_records` gives them."""
    counts: Counter[str] = Counter()
    denials: Counter[tuple[str, str]] = Counter()
    pushes: list[Push] = []
    used, refused = UsedByModel(), RefusedCredentials()
    for record in records:
        if refused.take(record):
            continue
        if usage := usage_of(record):
            used.add(usage)
            continue
        event, decision = record.get("event"), _text(record.get("decision"))
        if event == "git_push_result":
            _settle_push(pushes, record)
            continue
        if event not in {"request", "git_push", "git_fetch"}:
            continue
        counts[decision] += 1
        if event == "git_push":
            pushes.append(_push(record, decision))
        if decision == "deny":
            place = _text(record.get("host")) or _text(record.get("remote"))
            denials[place, _text(record.get("reason"))] += 1
    return Decided(
        allowed=counts["allow"],
        denied=counts["deny"],
        failed=counts["error"],
        denials=tuple((host, reason, count) for (host, reason), count in denials.most_common(MAX_DENIALS)),
        pushes=tuple(pushes),
        used=used,
        refused=refused,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResult:
    """One session from its launch to its settled state.

    ``exit_code`` is the agent's, 124 after ``--timeout``, 128 + N after signal N, or bot-bottle's own where
    nothing ran. ``duration`` is in seconds from the launch on; ``workspace`` says where the work is, where
    it is ``preserved``; ``error`` is the sentence of a failure.
    """

    identity: str
    agent: str
    bottle: str
    backend: str
    exit_code: int
    ending: Ending
    started_at: str
    duration: float
    audit_log: str
    preserved: bool = False
    workspace: str = ""
    error: str = ""
    decided: Decided = field(default_factory=Decided)

    def to_json(self) -> dict[str, object]:
        """Give the one object that ``--json`` prints; its keys are a promise (docs/headless.md)."""
        return {
            "identity": self.identity,
            "agent": self.agent,
            "bottle": self.bottle,
            "backend": self.backend,
            "exit_code": self.exit_code,
            "ended_by": self.ending,
            "error": self.error or None,
            "started_at": self.started_at,
            "duration_seconds": round(self.duration, 3),
            "decisions": {
                "allowed": self.decided.allowed,
                "denied": self.decided.denied,
                "failed": self.decided.failed,
            },
            "denials": [
                {"host": host, "reason": reason, "count": count}
                for host, reason, count in self.decided.denials
            ],
            "pushes": [
                {
                    "remote": push.remote,
                    "refs": list(push.refs),
                    "decision": push.decision,
                    "reason": push.reason or None,
                    "taken": push.taken,
                }
                for push in self.decided.pushes
            ],
            "refused_credentials": self.decided.refused.to_json(),
            "tokens": self.decided.used.to_json(),
            "preserved": self.preserved,
            "workspace": self.workspace or None,
            "audit_log": self.audit_log,
        }


def _push(record: Mapping[str, object], decision: str) -> Push:
    return Push(
        remote=_text(record.get("remote")),
        refs=_texts(record.get("refs")),
        decision=decision,
        reason=_text(record.get("reason")),
    )


def _settle_push(pushes: list[Push], record: Mapping[str, object]) -> None:
    """Mark the push that a result belongs to: the latest allowed one of the same remote and refs."""
    remote, refs = _text(record.get("remote")), _texts(record.get("refs"))
    for index in range(len(pushes) - 1, -1, -1):
        push = pushes[index]
        if (push.remote, push.refs, push.decision) == (remote, refs, "allow"):
            pushes[index] = Push(
                remote=remote,
                refs=refs,
                decision="allow",
                reason=_text(record.get("message")),
                taken=record.get("taken") is True,
            )
            return


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
