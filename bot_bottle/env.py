"""The manifest's ``env``: literals, host variables and prompted values.

Three spellings, told apart by the value: ``?message`` is asked for on the terminal without echo,
``${HOST_VAR}`` is taken from the operator's environment, anything else is literal. Errors name names only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HOST_VAR = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedEnv:
    """The bottle's own variables; ``forwarded`` came from the host or a prompt and is never shown."""

    literals: dict[str, str] = field(default_factory=dict)
    forwarded: dict[str, str] = field(default_factory=dict, repr=False)

    def merged(self) -> dict[str, str]:
        """Give all variables, to be passed into the bottle's own environment and nowhere else."""
        return {**self.literals, **self.forwarded}


def entry_kind(entry: str) -> str:
    """Say how an entry gets its value, never the value: ``literal``, ``asked`` or ``host:NAME``."""
    match = _HOST_VAR.fullmatch(entry)
    if match:
        return f"host:{match[1]}"
    return "asked" if entry.startswith("?") else "literal"


def resolve_env(
    declared: Mapping[str, str],
    host_env: Mapping[str, str],
    ask: Callable[[str, str], str] | None,
) -> ResolvedEnv:
    """Resolve ``declared``; ``ask(name, message)`` reads one prompted value, None means there is no terminal.

    Raises ``UsageError`` that names every variable which cannot be had.
    """
    literals: dict[str, str] = {}
    forwarded: dict[str, str] = {}
    problems: list[str] = []
    for name, entry in declared.items():
        match = _HOST_VAR.fullmatch(entry)
        if match:
            value = host_env.get(match[1])
            if value is None:
                problems.append(
                    f"env.{name}: the host variable {match[1]} is not set; export it before starting"
                )
            else:
                forwarded[name] = value
        elif entry.startswith("?"):
            if ask is None:
                problems.append(
                    f"env.{name}: is asked for on a terminal and there is none; use ${{HOST_VAR}} instead"
                )
            elif not problems:
                forwarded[name] = ask(name, entry[1:].strip() or f"value for {name}")
        else:
            literals[name] = entry
    problems += [
        f"env.{name}: the value holds a NUL character" for name, value in forwarded.items() if "\0" in value
    ]
    if problems:
        raise UsageError("; ".join(problems))
    return ResolvedEnv(literals=literals, forwarded=forwarded)
