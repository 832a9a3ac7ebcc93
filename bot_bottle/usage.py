"""How much of a model an agent used, as its provider's answers say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The audit event of one answer that said how much it used.
EVENT = "usage"
#: How many models are told apart; what is used of further ones is summed up under ``OTHERS``.
MAX_MODELS = 32
OTHERS = "(others)"


class Usage(NamedTuple):
    """What one answer used of one model, in tokens.

    ``input`` is all of the prompt, ``cached`` the part of it that was read from a cache, ``output`` all that
    was made, thoughts included. ``model`` is ``""`` where no answer named it.
    """

    model: str
    input: int = 0
    cached: int = 0
    output: int = 0


@dataclass(slots=True)
class Used:
    """A sum: how many answers, and their tokens as in :class:`Usage`."""

    answers: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0

    def add(self, used: Usage | Used) -> None:
        """Count one answer more, or another sum."""
        self.answers += used.answers if isinstance(used, Used) else 1
        self.input += used.input
        self.cached += used.cached
        self.output += used.output

    def to_json(self) -> dict[str, int]:
        """Give the numbers with their names."""
        return {
            "answers": self.answers,
            "input_tokens": self.input,
            "cached_tokens": self.cached,
            "output_tokens": self.output,
        }


class UsedByModel:
    """Sums by model, of a bounded number of models; false where nothing was used."""

    __slots__ = ("models",)

    def __init__(self) -> None:
        self.models: dict[str, Used] = {}

    def __bool__(self) -> bool:
        return bool(self.models)

    def add(self, usage: Usage) -> None:
        """Count one answer."""
        known = usage.model in self.models or len(self.models) < MAX_MODELS
        self.models.setdefault(usage.model if known else OTHERS, Used()).add(usage)

    @property
    def total(self) -> Used:
        """The sum over all models."""
        total = Used()
        for used in self.models.values():
            total.add(used)
        return total

    def to_json(self) -> dict[str, object]:
        """Give the total, and each model's under ``models``."""
        models = [{"model": name or None, **used.to_json()} for name, used in self.models.items()]
        return {**self.total.to_json(), "models": models}


def usage_of(record: Mapping[str, object]) -> Usage | None:
    """Read an audit record; ``None`` for one of another event."""
    if record.get("event") != EVENT:
        return None
    return Usage(
        model=str(record.get("model") or ""),
        input=_count(record.get("input_tokens")),
        cached=_count(record.get("cached_tokens")),
        output=_count(record.get("output_tokens")),
    )


def _count(value: object) -> int:
    return value if type(value) is int else 0
