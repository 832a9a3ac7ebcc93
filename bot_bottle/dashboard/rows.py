"""How bottles and requests read: cells with a word for their colour, plain text, JSON. Pure.

Everything here is safe to show: cut to printable characters, and never in any form of markup.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from bot_bottle.legible import legible
from bot_bottle.record_lines import record_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot_bottle.dashboard.board import Bottle
    from bot_bottle.supervise.operator import Asked

#: What a cell is to look like; the screen knows the colours.
Tone: TypeAlias = Literal["", "good", "warn", "bad", "dim", "strong"]
Cell: TypeAlias = tuple[str, Tone]

_STATES: dict[str, Tone] = {
    "running": "good",
    "detached": "good",
    "cut off": "bad",
    "no sidecar": "bad",
    "unfinished": "warn",
}
_REFUSALS = frozenset({"deny", "error", "refused"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: ``width`` in cells, 0 for what is left; ``least`` is the screen's width to show it at.

    ``right`` aligns it, ``tail`` keeps the end of what is too long and not its beginning.
    """

    title: str
    width: int
    least: int = 0
    right: bool = False
    tail: bool = False


BOTTLES: tuple[Column, ...] = (
    Column(title="IDENTITY", width=0, tail=True),
    Column(title="STATE", width=10),
    Column(title="AGENT", width=16, least=130),
    Column(title="BACKEND", width=12, least=74),
    Column(title="UP", width=6, right=True),
    Column(title="REQUESTS", width=9, least=88, right=True),
    Column(title="REQ/S", width=6, least=66, right=True),
    Column(title="DENIED", width=6, right=True),
    Column(title="TOKENS", width=6, least=96, right=True),
    Column(title="ASKS", width=4, right=True),
    Column(title="LAST PUSH", width=24, least=112),
)
REQUESTS: tuple[Column, ...] = (
    Column(title="ID", width=8),
    Column(title="BOTTLE", width=22, tail=True),
    Column(title="AGE", width=5, right=True),
    Column(title="KIND", width=10, least=88),
    Column(title="ASKS FOR", width=0),
)


def bottle_cells(one: Bottle) -> tuple[Cell, ...]:
    """Give the cells of :data:`BOTTLES`."""
    rest: Tone = "" if one.is_live else "dim"
    state = one.state if one.exit_code is None or one.is_live else f"exit {one.exit_code}"
    return (
        (one.identity, "strong" if one.is_live else "dim"),
        (state, "bad" if one.is_live and one.refused_credentials else _STATES.get(one.state, "dim")),
        (legible(one.agent), rest),
        (legible(one.backend), rest),
        (span(one.up) if one.up is not None else "", ""),
        (_number(one.requests), rest),
        (f"{one.rate:.1f}" if one.rate and one.rate < 100 else _number(round(one.rate)), "")
        if one.is_live
        else ("", ""),
        (_number(one.denied), "warn" if one.denied and one.is_live else rest),
        (_number(one.tokens), rest),
        (_number(one.asks), "warn" if one.asks else "dim"),
        (one.push, "bad" if "refused" in one.push else rest),
    )


def request_cells(asked: Asked, now: float) -> tuple[Cell, ...]:
    """Give the cells of :data:`REQUESTS`; ``now`` is in seconds since the epoch."""
    request = asked.request
    rest: Tone = "" if asked.running else "dim"
    return (
        (request.id, "strong"),
        (asked.identity, rest),
        (span(max(0.0, now - request.asked)), rest),
        (request.kind, rest),
        (legible(request.summary), "warn"),
    )


def record_cell(record: Mapping[str, object]) -> Cell:
    """Give one event as a line."""
    line = record_line(record)
    time, rest = line[:32].strip(), line[33:]
    tone: Tone = ""
    if record.get("decision") in _REFUSALS:
        tone = "bad"
    elif record.get("event") in {"asked", "answered", "used"}:
        tone = "warn"
    elif record.get("event") != "request":
        tone = "dim"
    return f"{time[11:19]} {rest}", tone


def record_lines(record: Mapping[str, object], width: int) -> list[Cell]:
    """Give every field of a record, a list's items and a long text on lines of their own of ``width``."""
    lines: list[Cell] = []
    for name, value in record.items():
        items = value if isinstance(value, list) else str(value).splitlines() or [""]
        texts = [piece for item in items or [""] for piece in _pieces(legible(str(item)), width - 14)]
        lines.append((f"{legible(name):<13} {texts[0]}".rstrip(), ""))
        lines += [(f"{'':<13} {more}", "") for more in texts[1:]]
    return lines


def _pieces(text: str, width: int) -> list[str]:
    """Cut a text where it has to be; every character of it is shown."""
    width = max(8, width)
    return [text[start : start + width] for start in range(0, len(text), width)] or [""]


def span(seconds: float) -> str:
    """Say a time in at most five characters."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    return f"{whole // 86_400}d"


def summary(bottles: Sequence[Bottle], requests: Sequence[Asked]) -> str:
    """Say in one line how things stand."""
    live = sum(one.is_live for one in bottles)
    parts = [f"{live} running", f"{len(bottles) - live} kept"]
    parts += [f"{len(requests)} {'request waits' if len(requests) == 1 else 'requests wait'}"] * bool(
        requests
    )
    cut = sum(one.state == "cut off" for one in bottles)
    parts += [f"{cut} cut off"] * bool(cut)
    refused = sum(bool(one.refused_credentials) for one in bottles if one.is_live)
    parts += [f"{refused} with a credential refused"] * bool(refused)
    return ", ".join(parts)


def snapshot(bottles: Sequence[Bottle], requests: Sequence[Asked]) -> dict[str, object]:
    """Give everything as JSON's plain data."""
    return {
        "bottles": [
            {**asdict(one), "up": None if one.up is None else round(one.up), "rate": round(one.rate, 1)}
            for one in bottles
        ],
        "requests": [
            {
                "identity": one.identity,
                "running": one.running,
                **one.request.to_record(),
                "summary": one.request.summary,
            }
            for one in requests
        ],
    }


def _number(value: int) -> str:
    if value < 10_000:
        return str(value)
    return f"{value // 1000}k" if value < 10_000_000 else f"{value // 1_000_000}M"
