"""A git upstream of the demo's own: one bare repository behind git's smart-HTTP server, for one token.

The wire is git's own ``git http-backend`` (git-http-backend(1)) behind a :class:`ScriptedServer`.
"""

from __future__ import annotations

import base64
import binascii
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.demo.upstreams import Answer
from bot_bottle.git_gate import git

if TYPE_CHECKING:
    from bot_bottle.demo.upstreams import Seen

#: Its path below the host.
PROJECT = "/me/project.git"
BRANCH = "bottle/demo"
_SECONDS = 20.0
_MAX_BODY = 1 << 20

# As git-fast-import(1) reads it.
_SEED = b"""commit refs/heads/main
committer Upstream <upstream@example.org> 1700000000 +0000
data 12
First commit
M 100644 inline README.md
data 14
# The project

"""


def why_not() -> str:
    """Say why this machine cannot be such an upstream; ``""`` where it can."""
    try:
        program = git.program()
    except git.GitError:
        return "git is not installed here; install git to see this scene"
    asked = subprocess.run(
        [program, "--exec-path"], env=git.environment(), capture_output=True, timeout=_SECONDS, check=False
    )
    folder = Path(asked.stdout.decode(errors="replace").strip())
    missing = [name for name in ("git-http-backend", "git-remote-https") if not (folder / name).exists()]
    if asked.returncode or missing:
        return (
            f"git here comes without {' and '.join(missing) or 'its programs'}; a package of git's has them"
        )
    return ""


@dataclass(frozen=True, slots=True)
class GitUpstream:
    """Serves the repositories below ``folder`` to who knows ``token``; a handler of a scripted server."""

    folder: Path
    token: str

    def make(self) -> None:
        """Make the repository, with one commit on ``main``."""
        path = self._path
        path.mkdir(parents=True)
        self._git("init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(path), bare=False)
        self._git("fast-import", "--quiet", given=_SEED)

    def branches(self) -> dict[str, str]:
        """Give the subject of each branch's last commit by the branch's name."""
        lines = self._git("for-each-ref", "--format=%(refname:short) %(subject)", "refs/heads").splitlines()
        pairs = (line.decode().partition(" ") for line in lines)
        return {name: subject for name, _, subject in pairs}

    def holds(self, needle: bytes) -> bool:
        """Tell whether any object here, reachable or not, holds ``needle``."""
        return needle in self._git("cat-file", "--batch-all-objects", "--batch")

    def admits(self, seen: Seen) -> bool:
        """Tell whether a request brings the token."""
        user, password = _credential(seen)
        return bool(user) and password == self.token

    def __call__(self, seen: Seen) -> Answer:
        """Handle one request."""
        if not self.admits(seen):
            ask = ("WWW-Authenticate", 'Basic realm="git"')
            return Answer(status=401, headers=(ask,), body=b"no entry without a token\n")
        if len(seen.body) > _MAX_BODY:
            return Answer(status=413, body=b"too much for a demo\n")
        path, _, query = seen.target.partition("?")
        env = git.environment(
            GIT_PROJECT_ROOT=str(self.folder),
            GIT_HTTP_EXPORT_ALL="1",
            REQUEST_METHOD=seen.method,
            PATH_INFO=path,
            QUERY_STRING=query,
            REMOTE_USER=_credential(seen)[0],
            REMOTE_ADDR="127.0.0.1",
            CONTENT_TYPE=_first(seen, "content-type"),
            CONTENT_LENGTH=str(len(seen.body)),
            HTTP_CONTENT_ENCODING=_first(seen, "content-encoding"),
            GIT_PROTOCOL=_first(seen, "git-protocol"),
        )
        try:
            done = subprocess.run(
                [git.program(), "http-backend"],
                input=seen.body,
                env=env,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer(status=504, body=b"git took too long\n")
        return _answer(done.stdout)

    @property
    def _path(self) -> Path:
        return self.folder / PROJECT.lstrip("/")

    def _git(self, *arguments: str, given: bytes = b"", bare: bool = True) -> bytes:
        done = subprocess.run(
            git.command(self._path if bare else None, arguments),
            input=given,
            env=git.environment(),
            cwd=self.folder,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
        return done.stdout


def _credential(seen: Seen) -> tuple[str, str]:
    """Read HTTP's Basic credential (RFC 7617); empty for none and for what is none."""
    try:
        pair = base64.b64decode(_first(seen, "authorization").removeprefix("Basic ")).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    user, _, password = pair.partition(":")
    return user, password


def _first(seen: Seen, name: str) -> str:
    return next(iter(seen.values(name)), "")


def _answer(output: bytes) -> Answer:
    """Read what a CGI program printed (RFC 3875, 6)."""
    head, _, body = output.partition(b"\r\n\r\n")
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n"))
    fields = {name.lower(): (name, value.strip()) for name, colon, value in pairs if colon}
    if not fields:
        return Answer(status=500, body=b"git said nothing\n")
    _, status = fields.pop("status", ("", "200"))
    _, kind = fields.pop("content-type", ("", "text/plain"))
    return Answer(status=int(status.split()[0]), content_type=kind, headers=tuple(fields.values()), body=body)
