"""What the command line itself promises: help, exit codes, and one sentence whatever cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bot_bottle import bottle_state
from bot_bottle.cli import commands, main
from bot_bottle.cli.proxy import parse_listen
from bot_bottle.errors import UsageError
from tests.support.cli_home import declare, scripted_home, state

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return scripted_home(tmp_path, monkeypatch)


def test_every_command_has_help_and_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    for name in commands.COMMANDS:
        assert main([name, "--help"]) == 0
        assert "Usage: bot-bottle" in capsys.readouterr().out
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in commands.COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bot-bottle 0.")


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strat"]) == 2
    assert "did you mean start?" in capsys.readouterr().err


def test_an_unexpected_error_shows_its_place_and_not_its_text(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode() -> tuple[()]:
        raise RuntimeError("token=sk-" + "hidden")

    monkeypatch.setattr(bottle_state, "list_states", explode)
    assert main(["list"]) == 70
    err = capsys.readouterr().err
    assert "unexpected RuntimeError" in err
    assert "list_.py" in err
    assert "sk-hidden" not in err
    monkeypatch.setenv("BOT_BOTTLE_DEBUG", "1")
    assert main(["list"]) == 70
    assert "sk-hidden" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback(home: Path) -> None:
    for number in range(30):
        state(f"agent{number}-aaaaa", kept=True)
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "bot_bottle", "list"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(write_end)
    assert done.stderr == b""
    assert done.returncode == 141  # as a shell says it of a program that SIGPIPE ended


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["list"], 1, ""),
        (["list", "--json"], 1, ""),
        (["list", "--help"], 1, ""),
        (["cleanup", "agent0-aaaaa"], 2, "there is no terminal to ask on"),
    ],
)
@pytest.mark.parametrize("many", [1, 200])  # fails at the end, and in the middle: more than a buffer holds
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_a_sentence(
    home: Path, arguments: list[str], code: int, said: str, many: int, unbuffered: str
) -> None:
    for number in range(many):
        bottle_state.mark_preserved(state(f"agent{number}-aaaaa").name)
    late = not unbuffered and (many == 1 or arguments[0] == "cleanup")
    for full, words in (("/dev/full", "No space left on device"), (str(home / "out"), "File too large")):
        # A file that may not grow behaves as one on a disk without room.
        script = f'ulimit -f 0; exec "$@" >"{full}"'
        done = subprocess.run(
            ["sh", "-c", script, "sh", sys.executable, "-m", "bot_bottle", *arguments],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stderr.endswith(f"bot-bottle: the output cannot be written: {words}\n")
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert done.returncode == (code if late else 1)
        assert not late or said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("check", 1), ("check --json", 1), ("info a", 1), ("schema bottle", 1), ("doctor", 1), ("info none", 2)],
)
def test_a_full_disk_never_changes_what_the_exit_code_says(home: Path, arguments: str, code: int) -> None:
    declare(home, "agent_provider: {template: command, argv: [x]}\n")
    for errors in ("&1", str(home / "errors")):
        script = f'exec "{sys.executable}" -m bot_bottle {arguments} >/dev/full 2>{errors}'
        assert subprocess.run(["sh", "-c", script], check=False, timeout=60).returncode == code
    said = (home / "errors").read_text().splitlines()
    assert said[-1].startswith("bot-bottle: ")
    assert len(said) == 1


@pytest.mark.parametrize("arguments", ["list", "cleanup", "start a"])
def test_closed_descriptors_are_no_traceback(home: Path, arguments: str) -> None:
    script = f'exec "{sys.executable}" -m bot_bottle {arguments} <&- >&-'
    done = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, check=False, timeout=60)
    assert done.returncode in {0, 2}
    assert b"unexpected" not in done.stderr


#: Sends Ctrl-C at the import of a module, or from a callback there, where an exception would be forgotten.
_CUT = """
import os, signal, sys, time, weakref
from bot_bottle.cli import main

module, where = sys.argv.pop(1), sys.argv.pop(1)

class Thing: pass

class Cut:
    @staticmethod
    def find_spec(name, *_):
        if name == module:
            if where == "here":
                os.kill(os.getpid(), signal.SIGINT)
            else:
                thing = Thing()
                kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
                del thing
            end = time.monotonic() + 30
            while time.monotonic() < end:
                time.sleep(0.01)
            print("went on")

sys.meta_path.insert(0, Cut)
if module in sys.modules:
    sys.exit("is loaded already")
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("click", ""),
        ("bot_bottle.cli.commands", ""),
        ("bot_bottle.cli.list_", ""),
        ("bot_bottle.manifest.model", "\nbot-bottle: interrupted\n"),  # the command itself asks for it
    ],
)
@pytest.mark.parametrize("where", ["here", "callback"])
def test_ctrl_c_while_modules_load_is_quiet_and_never_lost(
    home: Path, module: str, words: str, where: str
) -> None:
    argv = [sys.executable, "-c", _CUT, module, where, "list", "agents"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (130, b"", words)


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("localhost:8080", ("127.0.0.1", 8080)), ("[::1]:9", ("::1", 9))],
)
def test_listen_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "text", ["", "8080", "host:1", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", ":1", "127.0.0.1:²"]
)
def test_bad_listen_addresses(text: str) -> None:
    with pytest.raises(UsageError, match="--listen"):
        parse_listen(text)
