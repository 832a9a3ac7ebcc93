"""What a push is answered: ``report-status`` for git, and lines for the person or agent behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.git_gate.pktline import DATA, FLUSH, PROGRESS, band, packet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot_bottle.decision import Deny
    from bot_bottle.git_gate.commands import Command

_LONGEST_LINE = 400
_MOST_FINDINGS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PushFinding:
    """One thing a scan refused: where it stands, by which rule, and its masked value.

    ``commit`` is hexadecimal or empty, ``line`` counts from 1 and is 0 where there is none. ``place`` is a
    path, or what it is in (``commit message``).
    """

    rule: str
    place: str
    commit: str = ""
    line: int = 0
    excerpt: str = ""

    def __str__(self) -> str:
        where = self.place + (f":{self.line}" if self.line else "")
        commit = f"commit {self.commit[:12]}, " if self.commit else ""
        shown = f" ({self.excerpt})" if self.excerpt else ""
        return one_line(f"{self.rule}: {commit}{where}{shown}")


def one_line(text: str) -> str:
    """Make text from outside fit for a terminal's one line: printable characters, bounded."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= _LONGEST_LINE else clean[:_LONGEST_LINE] + "…"


def progress(*lines: str) -> bytes:
    """Frame lines for git's stderr, where they appear after ``remote:``."""
    return band(PROGRESS, "".join(f"{one_line(line)}\n" for line in lines).encode())


def denial_lines(deny: Deny) -> tuple[str, ...]:
    """Say a refusal: what, by which rule, what next."""
    return (
        f"bot-bottle: {deny.message}",
        f"bot-bottle: rule {deny.rule} ({deny.reason})",
        f"bot-bottle: {deny.next_step}",
    )


def finding_lines(findings: Sequence[PushFinding]) -> tuple[str, ...]:
    """Say what a scan found, values masked, at most twenty of them."""
    lines = [f"bot-bottle: {finding}" for finding in findings[:_MOST_FINDINGS]]
    if len(findings) > _MOST_FINDINGS:
        lines.append(f"bot-bottle: and {len(findings) - _MOST_FINDINGS} more")
    return tuple(lines)


def status(unpack: str, results: Mapping[Command, str], *, side_band: bool) -> bytes:
    """Write ``report-status`` (gitprotocol-pack(5)); a result is ``""`` for success, else the reason.

    With ``side_band`` it travels in channel 1 and a last flush ends the response.
    """
    lines = [packet(f"unpack {one_line(unpack)}\n".encode())]
    for command, reason in results.items():
        said = f"ng {command.ref} {one_line(reason)}\n" if reason else f"ok {command.ref}\n"
        lines.append(packet(said.encode()))
    report = b"".join(lines) + FLUSH
    return band(DATA, report) + FLUSH if side_band else report
