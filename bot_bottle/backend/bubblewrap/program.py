"""Find the provider's program on the host and everything it needs to run inside a bottle.

Nothing is run to find out: links, first lines of scripts, virtual environments, npm packages and ELF headers
are read. What lies in the system is in every bottle anyway; of the rest exactly what is needed is shown,
read-only and at the place it has on the host, and never a folder that holds the operator's own files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.backend.bubblewrap import elf, node_packages, shims
from bot_bottle.backend.bubblewrap.layout import SYSTEM_ROOTS, ProgramFiles, is_below
from bot_bottle.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where commands are found inside without a name of their own in the bottle's first ``PATH`` folder.
_GUEST_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
#: Host folders that other things take the place of inside; a link there is never made again.
_TAKEN = ("/tmp", "/var", "/run", "/etc", "/home", "/proc", "/sys", "/dev", "/opt")
#: What lies under the agent's own home on the host is shown here instead: nothing may be mounted into a home
#: that an agent has written to.
_ELSEWHERE = "/opt/bot-bottle/host"

_PRIVATE = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".claude", ".codex", ".config", ".netrc",
    ".npmrc", ".git-credentials", ".pypirc", ".password-store", ".bot-bottle", ".mozilla",
)  # fmt: skip
_MAX_LINKS = 40
_MAX_STEPS = 200
_HEAD = 4096
_MAX_SCRIPT = 1 << 16

_PYTHONS = ("python", "pypy")
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
_WORD = re.compile(r"\"((?:\\.|[^\"\\])*)\"|'([^']*)'|([^\s\"';|&()<>]+)")
_HERE = re.compile(r"\$\{?basedir\}?|\$\(dirname [^)]*\)")
_EXEC_TRICK = re.compile(rb"^'''exec' (?:\"([^\"]+)\"|(\S+)) ", re.MULTILINE)


def find_program(name: str, env_path: str, home: Path | None = None) -> ProgramFiles:
    """Find ``name`` on ``env_path`` (colon-separated folders) or, absolute, where it says.

    An empty or relative path, and one in the agent's workspace, is the bottle's own affair: nothing is shown
    for it. Raises ``UnavailableError`` that says what was looked for and where, ``UsageError`` for a program
    that could only be shown together with the operator's private files.
    """
    relative = "/" in name and not name.startswith("/")
    if not name or relative or (is_below(name, (AGENT_HOME,)) and not os.path.exists(name)):
        return ProgramFiles()
    finder = _Finder(env_path, home or Path.home())
    if name.startswith("/"):
        if not os.path.isfile(name):
            raise UnavailableError(f"{name}: no such program on this machine; install it or correct the path")
        finder.add(name)
    else:
        finder.expose(name, required=True)
    return finder.result()


class _Finder:
    """What has been found so far."""

    def __init__(self, env_path: str, home: Path) -> None:
        self._folders = [folder for folder in env_path.split(os.pathsep) if folder.startswith("/")]
        self._home = home
        self._binds: dict[str, None] = {}
        self._links: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._env: dict[str, str] = {}
        self._aliases: dict[str, str] = {}
        self._seen: set[str] = set()

    def result(self) -> ProgramFiles:
        pairs = [(path, dest) for path in self._binds for dest in self._dests(path)]
        return ProgramFiles(
            binds=tuple(pairs),
            links=tuple((_guest(path), _guest_target(target)) for path, target in self._links.items()),
            names=tuple((name, _guest(path)) for name, path in self._names.items()),
            env=tuple(self._env.items()),
        )

    def expose(self, name: str, *, required: bool = False) -> None:
        """Find a command and give it its name inside."""
        if name in self._names:
            return
        path = self._which(name)
        if path is None:
            if required:
                from bot_bottle.agent_provider.registry import provider_programs  # noqa: PLC0415

                looked = ", ".join(dict.fromkeys(self._folders)) or "an empty PATH"
                how = dict(provider_programs()).get(name, "")
                raise UnavailableError(
                    f"{name} was not found on this machine (looked in {looked}); install it first"
                    + (f": {how}" if how else "")
                )
            return
        if os.path.dirname(path) not in _GUEST_PATH:
            self._names[name] = path
        elif required:
            self._names.setdefault(name, path)
        self.add(path)

    def add(self, path: str) -> None:
        """Show one program and all it needs."""
        if path in self._seen or len(self._seen) > _MAX_STEPS:
            return
        self._seen.add(path)
        real = self._resolve(path)
        try:
            with open(real, "rb") as file:
                head = file.read(_HEAD)
        except OSError as error:
            raise UnavailableError(
                f"{path} cannot be read: {error.strerror}; it is needed to run the agent"
            ) from error
        self._show_file(real)
        package = node_packages.package_root(real)
        if package and not is_below(package, SYSTEM_ROOTS):
            self._add_package(package)
        if head.startswith(b"#!"):
            self._add_script(path, real, head)
        elif head.startswith(elf.MAGIC):
            for library in elf.libraries(real):
                self._show_file(self._resolve(library))
            if os.path.basename(real).startswith(_PYTHONS):
                self._show_prefix(os.path.dirname(real))

    def _add_script(self, path: str, real: str, head: bytes) -> None:
        words = head[2:].split(b"\n", 1)[0].decode("utf-8", "replace").split()
        if not words:
            return
        interpreter = words[0]
        trick = _EXEC_TRICK.search(head)
        if trick:  # pip's way around a first line that would be too long
            interpreter = os.fsdecode(trick[1] or trick[2])
        elif os.path.basename(interpreter) == "env":
            rest = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
            self.add(interpreter)
            if not rest:
                return
            self.expose(rest[0])
            interpreter = self._which(rest[0]) or rest[0]
        if not os.path.exists(interpreter):
            raise UnavailableError(
                f"{path} needs {interpreter}, which is not on this machine; install it first"
            )
        kind = os.path.basename(interpreter)
        if kind.startswith(_PYTHONS):
            self._add_python(interpreter, real)
        else:
            self.add(interpreter)
        if kind in _SHELLS and not is_below(real, SYSTEM_ROOTS):
            self._add_wrapped(real)
        if kind in {"node", "nodejs", "bun", "deno"} and not node_packages.package_root(real):
            self._add_linked_package(real)

    def _add_python(self, interpreter: str, script: str) -> None:
        """Show an interpreter with its library; for a virtual environment also what that was made from."""
        self.add(interpreter)
        environment = Path(interpreter).parent.parent
        config = environment / "pyvenv.cfg"
        if config.is_file():
            self._show_tree(self._resolve(str(environment)))
            for line in config.read_text("utf-8", "replace").splitlines():
                key, _, value = line.partition("=")
                if key.strip() == "home" and os.path.isdir(value.strip()):
                    self._show_prefix(self._resolve(value.strip()))
        base = str(self._home / ".local")
        if is_below(script, (f"{base}/bin",)) and not config.is_file():
            # Installed with `pip install --user`: its packages lie beside it, not beside the interpreter.
            for packages in sorted(Path(base, "lib").glob("python3.*/site-packages")):
                self._show_tree(self._resolve(str(packages)))
                self._env["PYTHONUSERBASE"] = _guest(base)

    def _show_prefix(self, bin_dir: str) -> None:
        if not is_below(bin_dir, SYSTEM_ROOTS):
            self._show_tree(os.path.dirname(bin_dir))

    def _add_package(self, root: str) -> None:
        for folder, link in node_packages.closure(root):
            self._show_tree(self._resolve(link))
            self._show_tree(folder)

    def _add_linked_package(self, real: str) -> None:
        for folder in Path(real).parents:
            if (folder / "package.json").is_file():
                self._add_package(str(folder))
                return

    def _add_wrapped(self, real: str) -> None:
        """Follow a small shell script that only starts another program."""
        if os.path.getsize(real) > _MAX_SCRIPT:
            return
        for line in Path(real).read_text("utf-8", "replace").splitlines():
            if "exec" in line.split("#")[0].split() or line.lstrip().startswith("exec "):
                for word in _words(line, os.path.dirname(real)):
                    self._add_word(word, real)

    def _add_word(self, word: str, script: str) -> None:
        if "/" not in word:
            if word in {"node", "bun", "deno", "python3", "python"}:
                self.expose(word)
            return
        # Programs only: a settings file named on the same line stays on the host.
        runs = os.access(word, os.X_OK) or word.endswith((".js", ".mjs", ".cjs"))
        if word.startswith("/") and word != script and runs and os.path.isfile(word):
            self.add(os.path.normpath(word))

    def _which(self, name: str) -> str | None:
        for folder in self._folders:
            candidate = f"{folder.rstrip('/')}/{name}"
            if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
                behind = shims.program_behind(candidate)
                if behind:
                    return behind
        return None

    def _resolve(self, path: str) -> str:
        """Follow ``path`` link by link, noting each to be made inside too; gives the real path."""
        pending = [part for part in reversed(path.split("/")) if part]
        current = "/"
        links = 0
        while pending:
            part = pending.pop()
            if part == ".":
                continue
            if part == "..":
                current = os.path.dirname(current)
                continue
            candidate = os.path.join(current, part)
            if not os.path.islink(candidate):
                current = candidate
                continue
            links += 1
            if links > _MAX_LINKS:
                raise UnavailableError(f"{path}: too many symbolic links")
            target = os.readlink(candidate)
            self._note_link(candidate, target)
            pending += [piece for piece in reversed(target.split("/")) if piece]
            if target.startswith("/"):
                current = "/"
        return current

    def _note_link(self, link: str, target: str) -> None:
        if is_below(link, SYSTEM_ROOTS):
            return
        if os.path.dirname(link) == "/" or any(is_below(taken, (link,)) for taken in _TAKEN):
            # A top folder that is a link (/home -> /var/home): what lies behind it is shown under both names.
            self._aliases[os.path.realpath(link)] = link
            return
        self._links[link] = target

    def _dests(self, path: str) -> Iterator[str]:
        yield _guest(path)
        for real, link in self._aliases.items():
            if is_below(path, (real,)):
                yield _guest(link + path[len(real) :])

    def _show_file(self, path: str) -> None:
        if is_below(path, SYSTEM_ROOTS):
            return
        # A program of its own below /opt/NAME comes with its resources, and nothing private lies there.
        parts = Path(path).parts
        if len(parts) > 3 and parts[1] == "opt":
            self._binds["/".join(("", *parts[1:3]))] = None
        else:
            self._binds[path] = None

    def _show_tree(self, path: str) -> None:
        if is_below(path, SYSTEM_ROOTS) or not os.path.isdir(path):
            return
        home = os.path.realpath(self._home)
        private = [os.path.realpath(f"{home}/{name}") for name in _PRIVATE]
        holds = path == "/" or is_below(home, (path,)) or any(is_below(one, (path,)) for one in private)
        inside = is_below(path, private) and "/node_modules/" not in f"{path}/"
        if holds or inside:
            raise UsageError(
                f"{path} would have to be shown in the bottle to run this program, and it holds private "
                "files; install the program elsewhere"
            )
        self._binds[path] = None


def _words(line: str, folder: str) -> Iterator[str]:
    for match in _WORD.finditer(line):
        word = match[1] or match[2] or match[3] or ""
        yield _HERE.sub(lambda _match: folder, word)


def _guest(path: str) -> str:
    return f"{_ELSEWHERE}{path}" if is_below(path, (AGENT_HOME,)) else path


def _guest_target(target: str) -> str:
    return _guest(target) if target.startswith("/") else target
