"""Each command that the documents show exists, takes what they give it, and none is left out."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from bot_bottle.cli.commands import COMMANDS, cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCS = sorted(
    [ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")]
)

_CALL = re.compile(r"^(?:[A-Za-z_]+=(?:\$\()?)?(?:[A-Z_]+=\S+ )*bot-bottle (?!\d)(.*)$")
_IN_TEXT = re.compile(r"`bot-bottle ([^`]+)`")


def _lines(path: Path) -> list[tuple[int, str]]:
    """Find what a reader would copy: lines of code that call the program."""
    found = []
    fenced = False
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            call = _CALL.match(line.strip())
            if call:
                found.append((number, call[1].partition(" #")[0].rstrip().removesuffix(")").strip()))
    return found


SHOWN = [
    pytest.param(text, id=f"{path.relative_to(ROOT)}:{number}")
    for path in DOCS
    for number, text in _lines(path)
]
MENTIONED = [
    pytest.param(text, id=f"{path.relative_to(ROOT)}-{index}")
    for path in DOCS
    for index, text in enumerate(_IN_TEXT.findall(path.read_text()))
]


def _command(words: list[str]) -> tuple[click.Command, list[str]]:
    """Follow the words down to the command that they name; gives it and its arguments."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            if command is not cli:  # a group whose words are arguments of it, too
                break
            raise AssertionError(f"there is no command {words[0]}")
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("text", SHOWN)
def test_a_command_to_copy_is_taken_as_it_is(text: str) -> None:
    # What stands for the reader's own: IDENTITY, NAME; what may be left out: [--json].
    command, words = _command(shlex.split(re.sub(r"\[(-[^\]]*)\]", r"\1", text)))
    # Whether a file of the reader's is there is another question; --help and --version end at once.
    with contextlib.suppress(click.exceptions.Exit), _missing_files():
        command.make_context(command.name or "", words).close()


@contextlib.contextmanager
def _missing_files() -> Iterator[None]:
    try:
        yield
    except click.BadParameter as error:
        if "does not exist" not in error.message:
            raise


@pytest.mark.parametrize("text", MENTIONED)
def test_a_command_in_the_text_exists_with_its_options(text: str) -> None:
    words = text.replace("\\|", " ").replace("|", " ").replace("[", " ").replace("]", " ").split()
    if not re.fullmatch(r"[a-z]+", words[0]):
        assert words[0].startswith("--") or words[0] == "...", text
        return
    command, rest = _command(words)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"} <= {
        *known,
        "--help",
    }


def test_the_readme_lists_every_command() -> None:
    table = [
        line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `bot-bottle ")
    ]
    listed = {name for line in table for name in re.findall(r"`(?:bot-bottle )?([a-z]+)[ `]", line)}
    assert set(COMMANDS) - listed == set()


def test_what_does_not_exist_is_found() -> None:
    """The search itself: of commands, options and arguments that are wrong."""
    assert len(SHOWN) > 20
    with pytest.raises(AssertionError):
        _command(["strat", "NAME"])
    command, words = _command(["start", "NAME", "--headles"])
    with pytest.raises(click.NoSuchOption):
        command.make_context("start", words)
