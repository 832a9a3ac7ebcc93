"""``bot-bottle completion bash|zsh|fish``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

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
