"""What a push asks for: the command list of receive-pack (gitprotocol-pack(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Action: TypeAlias = Literal["create", "update", "delete"]

MAX_COMMANDS = 100
_OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LONGEST_REF = 1024
# git-check-ref-format(1), rules 1, 3-10 (2, a slash, holds by demanding "refs/").
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|/\.|\.$|/$|\.lock(?:/|$)")


class CommandError(ValueError):
    """The command list is not one that the gate accepts; the text is for the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One ref to be moved. ``old`` and ``new`` are hexadecimal object names, zeros for "not there"."""

    ref: str
    old: str
    new: str

    @property
    def action(self) -> Action:
        """What becomes of the ref."""
        if not self.new.strip("0"):
            return "delete"
        return "update" if self.old.strip("0") else "create"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandList:
    """A push: its commands, and the capabilities its client chose."""

    commands: tuple[Command, ...]
    capabilities: frozenset[str]

    @property
    def wants_pack(self) -> bool:
        """Whether a pack follows; none does where all it asks for is deletion."""
        return any(command.action != "delete" for command in self.commands)


def is_ref_name(name: str) -> bool:
    """Tell a full ref name that every git accepts (git-check-ref-format(1))."""
    return (
        name.startswith("refs/")
        and len(name) <= _LONGEST_REF
        and not _FORBIDDEN.search(name)
        and name.isprintable()
    )


def parse_commands(lines: Sequence[bytes], *, oid_length: int = 40) -> CommandList:
    """Read the lines before the first flush; ``oid_length`` is the mirror's (40 or 64 digits).

    Raises :class:`CommandError`. ``shallow`` lines are passed over: the new commits must be whole together
    with what the mirror has, whatever the client's own history lacks.
    """
    commands: list[Command] = []
    capabilities: frozenset[str] = frozenset()
    for line in lines:
        if line.startswith(b"shallow ") and not commands:
            continue
        if line.startswith(b"push-cert"):
            raise CommandError("signed pushes (--signed) are not taken by the gate; push without it")
        text, mark, extra = line.partition(b"\0")
        if mark:
            if commands:
                raise CommandError("capabilities stand on the first line only")
            capabilities = frozenset(extra.decode("ascii", "replace").split())
        commands.append(_command(text.removesuffix(b"\n"), oid_length))
        if len(commands) > MAX_COMMANDS:
            raise CommandError(f"one push moves at most {MAX_COMMANDS} refs; push them in several")
    if not commands:
        raise CommandError("the push names no ref")
    if len({command.ref for command in commands}) != len(commands):
        raise CommandError("the push names one ref twice")
    if any(word.partition("=")[0] == "push-options" for word in capabilities):
        raise CommandError("push options (--push-option) are not taken by the gate; push without them")
    return CommandList(commands=tuple(commands), capabilities=capabilities)


def _command(text: bytes, oid_length: int) -> Command:
    parts = text.split(b" ", 2)
    if len(parts) != 3 or any(len(p) != oid_length or not _OID.fullmatch(p) for p in parts[:2]):
        raise CommandError("a line is no ref update")
    try:
        ref = parts[2].decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError("a ref's name is not UTF-8") from None
    if not is_ref_name(ref):
        raise CommandError("a ref's name is not one that git accepts")
    command = Command(ref=ref, old=parts[0].decode(), new=parts[1].decode())
    if not command.old.strip("0") and not command.new.strip("0"):
        raise CommandError("a line moves a ref from nothing to nothing")
    return command
