"""The manifest's env: three spellings, errors by name, values never shown."""

from __future__ import annotations

import getpass
import warnings

import pytest

from bot_bottle.cli import terminal
from bot_bottle.env import resolve_env
from bot_bottle.errors import UsageError


def test_the_three_spellings() -> None:
    asked: list[tuple[str, str]] = []

    def ask(name: str, message: str) -> str:
        asked.append((name, message))
        return "typed"

    resolved = resolve_env(
        {"A": "plain", "B": "${HOST}", "C": "?the word", "D": "?"}, {"HOST": "from-host"}, ask
    )
    assert resolved.literals == {"A": "plain"}
    assert resolved.forwarded == {"B": "from-host", "C": "typed", "D": "typed"}
    assert asked == [("C", "the word"), ("D", "value for D")]
    assert "from-host" not in repr(resolved)
    assert "typed" not in repr(resolved)


@pytest.mark.parametrize("literal", ["$HOST", "${HOST}x", "a?b", "$${HOST}", "${1X}"])
def test_everything_else_is_literal(literal: str) -> None:
    assert resolve_env({"A": literal}, {}, None).literals == {"A": literal}


def test_all_that_is_missing_is_named_at_once_and_nobody_is_asked() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_env({"A": "${NOT_THERE}", "B": "?secret"}, {}, None)
    assert "env.A" in str(caught.value)
    assert "NOT_THERE" in str(caught.value)
    assert "env.B" in str(caught.value)


def test_a_value_with_nul_is_refused_without_being_shown() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_env({"A": "?x"}, {}, lambda _name, _message: "se\0cret")
    assert "se\0cret" not in str(caught.value)


def test_an_input_that_ends_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("getpass.getpass", ended)
    with pytest.raises(UsageError, match=r"env\.KEY: no value was given; nothing was started"):
        terminal.ask_secret("KEY", "the key")


def test_a_terminal_that_would_show_the_value_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def shows(_prompt: str) -> str:
        warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2)
        return "shown"

    monkeypatch.setattr("getpass.getpass", shows)
    with pytest.raises(UsageError, match=r"env\.KEY: this terminal would show what is typed"):
        terminal.ask_secret("KEY", "the key")
