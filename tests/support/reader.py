"""A reader of the documents who types what they say, into one shell after the other."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.lab import Lab
    from tests.support.outside import Completed

#: A line that keeps what a command prints in a variable, for lines that come later.
_KEEPS = re.compile(r"(?:export )?([A-Za-z_]+)=\$\(")
_OPTIONAL = re.compile(r"\[(-[^\]]*)\]")
LEAVE = "\x10\x11"
INTERRUPT = "\x03"


class Reader:
    """One installation, one shell: folder and variables last from line to line."""

    def __init__(self, lab: Lab, *programs: Path) -> None:
        """``programs`` are further ones that the reader has installed."""
        self.lab = lab
        own = [str(Path(sys.executable).parent), *(str(program.parent) for program in programs)]
        self.env = {**lab.env, "PATH": ":".join([*own, lab.env["PATH"]])}
        self.cwd = lab.project
        self.words: dict[str, str] = {}
        """What stands in a document for the reader's own: ``IDENTITY``, ``NAME``."""

    def types(self, text: str, *, code: int = 0) -> Completed:
        """Type a line and wait for its end, which must be ``code``."""
        script = self.meant(text)
        kept = _KEEPS.match(script)
        if kept:
            script += f'; ended=$?; printf "\\n%s" "${kept[1]}"; exit $ended'
        elif script.startswith("cd "):
            script += " && pwd"
        done = self.lab.world.run(
            ["/bin/bash", "-c", script], account=self.lab.account, env=self.env, cwd=self.cwd, timeout=120
        )
        assert done.returncode == code, (text, done.returncode, done.out, done.err)
        if kept:
            self.env[kept[1]] = done.out.rpartition("\n")[2]
        elif script.startswith("cd "):
            self.cwd = Path(done.out.strip())
        return done

    def talks(self, text: str, talk: Mapping[str, str], *, code: int = 0, after: str = "") -> str:
        """Type a line on a terminal, and at each text of ``talk`` what stands beside it; gives what it said.

        ``after`` has to come behind all of it. What is interrupted is so until it ends.
        """
        said = ""
        with Terminal(
            self.lab.world,
            ["/bin/bash", "-c", f"exec {self.meant(text)}"],
            account=self.lab.account,
            env=self.env,
            cwd=self.cwd,
        ) as terminal:
            for question, answer in talk.items():
                said += terminal.wait_for(question) + question
                if answer != INTERRUPT:
                    terminal.enter(answer)
            if after:
                said += terminal.wait_for(after) + after
            pressed = INTERRUPT in talk.values()
            ended = terminal.interrupt() if pressed else terminal.exit_code()
        assert ended == code, (text, ended, said)
        return said

    def meant(self, text: str) -> str:
        """Put the reader's own in the place of what stands for it; take every option that may be left out."""
        text = _OPTIONAL.sub(r"\1", text)
        for word, meaning in self.words.items():
            text = text.replace(word, meaning)
        return text

    def git(self, *words: str) -> Completed:
        """Run git in the reader's folder."""
        env = {**self.env, **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "N")}
        env.update(dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "n@n.test"))
        done = self.lab.world.run(["git", *words], account=self.lab.account, env=env, cwd=self.cwd)
        assert done.returncode == 0, (words, done.err)
        return done
