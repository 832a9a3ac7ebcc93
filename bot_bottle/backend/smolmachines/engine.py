"""The one door to the smolmachines SDK: loaded late, always on this host, never with our environment.

The engine reads its settings from environment variables and passes them all on to the process that is the
virtual machine. So while it works, the environment holds what it needs and nothing else: no credential of the
operator's reaches that process, and no ``SMOLVM_*`` of theirs opens a machine up.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import threading
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot_bottle import extras
from bot_bottle.errors import LaunchError, UnavailableError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

PACKAGE = "smolmachines"

_CLIENT = "smol-vmm"
_AGENT_ROOT = "agent-rootfs.tar.zst"
# Where the engine finds programs, its user's folders and the language of its words.
_PASSED_ENV = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
)
# The SDK's own default, made certain: a machine's process may use few system calls and few files.
_CONFINED = {"SMOLVM_SECCOMP": "enforce", "SMOLVM_LANDLOCK": "enforce"}
_MAX_WORDS = 400
#: One at a time: each puts back the environment that it found.
_AT_WORK = threading.RLock()


@functools.cache
def sdk() -> ModuleType:
    """Load the SDK; raises ``UnavailableError`` where it is not installed."""
    try:
        import smol  # noqa: PLC0415 - an extra, and heavy
    except ImportError as error:
        raise UnavailableError(
            f"the package {PACKAGE} is not installed; install it with: {extras.install_command(PACKAGE)}"
        ) from error
    return smol  # type: ignore[no-any-return,unused-ignore]  # without the extra mypy knows nothing of it


def version() -> str:
    """Give the engine's version; raises ``UnavailableError`` where it is not installed."""
    sdk()
    return metadata.version(PACKAGE)


def here(**options: object) -> Any:
    """Say that machines are on this host; a token for a cloud in the environment changes nothing."""
    return sdk().ConnectOptions(target="local", **options)


def engine_env() -> dict[str, str]:
    """Give the whole environment that the engine and its machines get."""
    return {name: os.environ[name] for name in _PASSED_ENV if name in os.environ} | _CONFINED


@contextlib.contextmanager
def engine_at_work(failed: str) -> Iterator[ModuleType]:
    """Yield the SDK with its own environment in place; its errors become ``LaunchError``: ``failed``: why.

    Environment variables belong to the whole process, so nothing else may start programs meanwhile. A machine
    holds a descriptor for each file of its image's folder that the guest has seen, so it gets as many of them
    as there may be.
    """
    smol = sdk()
    with _AT_WORK:
        before = dict(os.environ)
        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        _replace_environment(engine_env())
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        try:
            yield smol
        except smol.SmolError as error:
            raise LaunchError(f"{failed}: {words_of(error)}") from error
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
            _replace_environment(before)


def words_of(error: BaseException) -> str:
    """Give the engine's own words on one line, in bounds."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return legible("; ".join(lines))[:_MAX_WORDS]


def client_argv(name: str, *, tty: bool, user: str, workdir: str) -> list[str]:
    """Give the client program's argv up to the command that it runs in machine ``name``."""
    streams = ["-i", "-t"] if tty else ["-i"]
    return [str(_folder() / _CLIENT), "machine", "exec", *streams, "--name", name, "-u", user, "-w", workdir]


def update_argv(name: str, *, memory_mib: int, processors: int) -> list[str]:
    """Give the client program's argv that changes what the stopped machine ``name`` starts with next."""
    size = ["--mem", str(memory_mib), "--cpus", str(processors)]
    return [str(_folder() / _CLIENT), "machine", "update", "--name", name, *size]


def client_env() -> dict[str, str]:
    """Give the client program's environment."""
    folder = _folder()
    own = {"SMOLVM_LIB_DIR": str(folder), "SMOLVM_AGENT_ROOTFS_TAR": str(folder / _AGENT_ROOT)}
    terminal = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    return engine_env() | own | terminal


def _folder() -> Path:
    place = sdk().__file__
    if place is None:
        raise UnavailableError(
            f"the package {PACKAGE} is not whole; install it again with: {extras.install_command(PACKAGE)}"
        )
    return Path(place).parent


def _replace_environment(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)
