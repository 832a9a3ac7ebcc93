"""A kept bottle's state made by hand: the operator's repository, and a workspace that an agent worked in."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import mock

from bot_bottle import bottle_state
from bot_bottle.bottle_state import BottleMetadata
from bot_bottle.cli import main

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = "worker-abcde"
#: Tests of another account's repositories run as root.
_ANY_OWNER = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
_PEOPLE = {f"GIT_{who}_{what}": "x@git.test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one command of the product did."""

    code: int
    out: str
    err: str


def git(folder: Path, *arguments: str, given: bytes = b"") -> str:
    """Run real git as somebody without any configuration of their own."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    env |= _PEOPLE | _ANY_OWNER
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=env, input=given, capture_output=True, check=False
    )
    assert done.returncode == 0, (arguments, done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode("utf-8", "replace").strip()


class KeptWork:
    """The operator's ``project``, and the ``workspace`` that began as a clone of it, kept by bubblewrap."""

    def __init__(self, base: Path) -> None:
        """Make both; ``BOT_BOTTLE_HOME`` is to be ``base / "home"``."""
        self.home, self.project = base / "home", base / "project"
        self.home.mkdir(mode=0o700)
        self.project.mkdir()
        git(self.project, "init", "-q", "-b", "main")
        (self.project / "kept.txt").write_text("first\nsecond\n")
        (self.project / ".gitignore").write_text("*.log\n/build/\n")
        git(self.project, "add", ".")
        git(self.project, "commit", "-q", "-m", "one")
        self.first = git(self.project, "rev-parse", "HEAD")
        state = bottle_state.create_state(
            BottleMetadata(
                identity=IDENTITY,
                agent_name="worker",
                bottle_name="b",
                cwd=str(self.project),
                copy_cwd=True,
                backend="bubblewrap",
            )
        )
        bottle_state.mark_preserved(IDENTITY)
        self.workspace = state / "workspace"
        git(base, "clone", "-q", "--no-local", str(self.project), str(self.workspace))

    def commit(self, name: str, text: str, message: str = "work") -> str:
        """Let the agent write and commit one file; gives the commit."""
        place = self.workspace / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        git(self.workspace, "add", "-A")
        git(self.workspace, "commit", "-q", "-m", message)
        return git(self.workspace, "rev-parse", "HEAD")

    def run(self, *words: str, **env: str) -> Ran:
        """Run ``bot-bottle`` in the project, in this process: most of a run would else be its imports."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.project),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.dict(os.environ, {"HOME": str(self.home), **env}),
        ):
            tempfile.tempdir = None  # or the folder of the first run is kept for ever
            code = main(words)
            tempfile.tempdir = None
        return Ran(code=code, out=out.getvalue(), err=err.getvalue())

    def branch(self, name: str = f"bottle/{IDENTITY}") -> str:
        """Give the commit of one of the operator's branches, ``""`` for none."""
        return git(self.project, "for-each-ref", "--format=%(objectname)", f"refs/heads/{name}")

    def kept_files(self, commit: str) -> list[str]:
        """List the paths of a commit as the operator's git has them."""
        return git(
            self.project, "-c", "core.quotePath=false", "ls-tree", "-r", "--name-only", commit
        ).splitlines()
