"""``bot-bottle completion bash|zsh|fish``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import (
    BashComplete,
    FishComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

_PROGRAM = "bot-bottle"
#: What click looks for when the script calls the program back.
_VARIABLE = "_BOT_BOTTLE_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(*, shell: str) -> None:
    """Print the script that completes commands, agents, identities and backends in SHELL.

    For this session: source <(bot-bottle completion bash). To keep it, write it where your shell looks for
    such scripts, for example ~/.local/share/bash-completion/completions/bot-bottle.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click brings these three
    from bot_bottle.cli.commands import cli  # noqa: PLC0415 - that module's table names this one

    shell_complete = kind(cli, {}, _PROGRAM, _VARIABLE)
    print(kind.source_template % shell_complete.source_vars())


def answer_shells() -> None:
    """Let what the printed scripts ask be answered by the classes below.

    They complete ``--option=value`` too, which each shell hands over and takes back in its own way.
    """
    for shell in (_Bash, _Zsh, _Fish):
        add_completion_class(shell)


class _Bash(BashComplete):
    """Bash, which takes ``--option=value`` for three words wherever ``=`` is in ``COMP_WORDBREAKS``."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Put such words together again; of the last one only the value is completed then."""
        words = split_arg_string(os.environ["COMP_WORDS"])
        cursor = int(os.environ["COMP_CWORD"])
        *before, last = [*words[1:cursor], *(words[cursor : cursor + 1] or [""])]
        before = _joined(before)
        if before and before[-1].startswith("--"):
            if last == "=":
                return before, ""
            if before[-1].endswith("="):
                return [*before[:-1], before[-1].removesuffix("=")], last
        return before, last

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Complete a word that bash left whole as a whole."""
        return _whole_words(super().get_completions(args, incomplete), incomplete)


class _Zsh(ZshComplete):
    """Zsh, which puts what it is given in the place of the whole word."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Write the option before each of its values."""
        return _whole_words(super().get_completions(args, incomplete), incomplete)


class _Fish(FishComplete):
    """Fish, which offers only what begins as the whole word does."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Write the option before each of its values."""
        return _whole_words(super().get_completions(args, incomplete), incomplete)


def _joined(words: Sequence[str]) -> list[str]:
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].startswith("--") and (word == "=" or joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def _whole_words(items: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    option, equals, _ = incomplete.partition("=")
    if equals and option.startswith("--"):
        for item in items:
            item.value = f"{option}={item.value}"
    return items
