"""The table of commands and the group that looks them up."""

from __future__ import annotations

import difflib
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from bot_bottle import __version__
from bot_bottle.cli import commands_are_loaded

#: Command -> its module below this package, and the line that ``--help`` shows without importing it.
COMMANDS: dict[str, tuple[str, str]] = {
    "start": ("start", "Run an agent in a new bottle."),
    "run": ("run", "Run several agents unattended, side by side."),
    "resume": ("resume", "Go on with a preserved bottle."),
    "attach": ("attach", "Join this terminal to a bottle that runs without one."),
    "list": ("list_", "List bottles that run or are kept; or agents, bottles, active ones."),
    "diff": ("diff", "Show what a bottle changed."),
    "pull": ("pull", "Bring a bottle's work home as a branch, scanned."),
    "logs": ("logs", "Show what is decided for a bottle, as it falls."),
    "stop": ("stop", "End the session of a running bottle; its work is kept."),
    "rm": ("rm", "Remove a kept bottle for good."),
    "apply": ("apply", "Let a running bottle go by its manifest as it is now."),
    "panic": ("panic", "Cut every running bottle off at once."),
    "info": ("info", "Show what an agent or an identity is and may do."),
    "check": ("check", "Say everything that is wrong with what is declared."),
    "init": ("init", "Write a bottle and an agent, asking what they need."),
    "edit": ("edit", "Edit an agent or a bottle; the old file stays until the new one is right."),
    "schema": ("schema", "Print the JSON Schema of manifest files."),
    "audit": ("audit", "Show the record of one bottle, or verify that it is whole."),
    "dashboard": ("dashboard", "Show all bottles on one screen, and answer agents from there."),
    "requests": ("requests", "Show what agents ask for."),
    "approve": ("approve", "Say yes to what an agent asks for, and open it for a while."),
    "deny": ("deny", "Say no to what an agent asks for."),
    "build": ("build", "Build ahead what starts of agents would have to wait for."),
    "cleanup": ("cleanup", "Remove what dead launches left; kept bottles only when asked."),
    "doctor": ("doctor", "Say what this machine can run, and what would change that."),
    "verify": ("verify", "Attack a bottle of this machine from inside, and show what held."),
    "sbom": ("sbom", "Print what this installation is made of, or check that it still is."),
    "demo": ("demo", "Show the whole thing at work, with nothing but this machine."),
    "proxy": ("proxy", "Run the egress proxy alone, beside any other sandbox."),
    "completion": ("completion", "Print the script that completes commands and names in a shell."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used, so that ``list`` pays for nothing else."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command's module."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"bot_bottle.cli.{COMMANDS[cmd_name][0]}").command
        assert isinstance(command, click.Command)  # noqa: S101 - a mistake in the table above
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command where there is none of that name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(COMMANDS)}"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names from the table, importing none of them."""
        names = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        options = super(click.Group, self).shell_complete(ctx, incomplete)
        return [*names, *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the table's own lines."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="bot-bottle", message="%(prog)s %(version)s")
def cli() -> None:
    """Run any coding agent unattended, as if it might be compromised, and lose nothing when it is."""
    commands_are_loaded()  # the one asked for is imported before its group is called
