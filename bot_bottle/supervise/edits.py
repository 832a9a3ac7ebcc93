"""What a yes writes for later starts: routes and pushes into the bottle's file, a Dockerfile into its state.

Each is made first, shown as a difference, and put in place only once the operator has agreed to that.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import bottle_state, paths
from bot_bottle.errors import LaunchError, UnavailableError, UsageError
from bot_bottle.files import write_atomic
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.bottle_state import BottleMetadata
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.manifest.model import Manifest
    from bot_bottle.supervise.push_grant import PushGrant

_DOCKERFILE = "Dockerfile"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A file that is to hold ``new`` in place of ``old`` (None: there is none); ``base`` is compared with."""

    path: Path
    new: str = field(repr=False)
    old: str | None = field(default=None, repr=False)
    base: str = field(default="", repr=False)

    @property
    def diff(self) -> tuple[str, ...]:
        """The change as lines of a unified diff."""
        before, after = self.base.splitlines(), self.new.splitlines()
        lines = difflib.unified_diff(before, after, "as it is", str(self.path), lineterm="", n=2)
        return tuple(legible(line.replace("\t", "    ")) for line in lines)

    def put_in_place(self) -> None:
        """Write it; raises ``UsageError`` where somebody else has changed the file meanwhile."""
        if _text(self.path) != self.old:
            raise UsageError(f"{self.path} was changed by somebody else meanwhile; nothing was written")
        self._write(self.new)

    def take_back(self) -> None:
        """Put back what was there."""
        if self.old is None:
            self.path.unlink(missing_ok=True)
        else:
            self._write(self.old)

    def _write(self, text: str) -> None:
        target = Path(os.path.realpath(self.path))  # a link within the operator's folder stays one
        try:
            mode = target.stat().st_mode & 0o755 if target.exists() else 0o600
            write_atomic(target, text.encode(), mode=mode)
        except OSError as error:
            raise LaunchError(f"{self.path}: cannot be written: {error.strerror}") from error


def route_edit(identity: str, route: EgressRoute) -> FileChange:
    """Give the change of the bottle's file that lets ``route`` hold for all its later starts.

    Raises ``UsageError`` where the file cannot take it so.
    """
    from bot_bottle.manifest.insert import with_route  # noqa: PLC0415

    return _bottle_edit(
        identity, lambda old: with_route(old, route.host, route.path_allowlist, route.methods)
    )


def push_edit(identity: str, push: PushGrant) -> FileChange:
    """Give the change of the bottle's file that lets what ``push`` opens hold for all its later starts.

    Raises as :func:`route_edit`.
    """
    from bot_bottle.manifest.insert import with_push  # noqa: PLC0415

    return _bottle_edit(identity, lambda old: with_push(old, push.remote, push.branches, push.paths))


def _bottle_edit(identity: str, made: Callable[[str], str]) -> FileChange:
    from bot_bottle.manifest.check import check_draft  # noqa: PLC0415 - reads all that is declared
    from bot_bottle.manifest.files import ManifestFolder  # noqa: PLC0415

    metadata, manifest = _declared(identity)
    name = manifest.require_agent(metadata.agent_name).bottle
    path = paths.bottles_dir() / f"{name}.md"
    old = ManifestFolder(path=path.parent).read(path)
    try:
        new = made(old)
    except ValueError as error:
        raise UsageError(f"{path}: {error} {name}") from None
    problems = check_draft(path, new, _folder(metadata))
    if problems:
        raise UsageError(f"{path} cannot take this: {problems[0]}; write it by hand: bot-bottle edit {name}")
    return FileChange(path=path, new=new, old=old, base=old)


def dockerfile_change(identity: str, text: str) -> tuple[FileChange, tuple[str, ...]]:
    """Give the change that lets the bottle's own image be built from ``text`` from its next start on.

    With it comes what a human should weigh before. Raises ``UsageError`` for what an agent's Dockerfile may
    not do, ``UnavailableError`` where its backend has no image.
    """
    from bot_bottle.backend.registry import LEGACY_BACKEND, get_bottle_backend  # noqa: PLC0415

    metadata, manifest = _declared(identity)
    state_dir = bottle_state.bottle_state_dir(identity)
    backend = get_bottle_backend(metadata.backend or LEGACY_BACKEND)
    bottle = manifest.bottle_for(metadata.agent_name)
    base = backend.dockerfile_of(bottle, state_dir)
    path = state_dir / _DOCKERFILE
    if path.is_symlink():
        raise UsageError(f"{path}: is a link; put the Dockerfile itself there")
    new = text if text.endswith("\n") else f"{text}\n"
    notes = backend.dockerfile_notes(new, base)
    return FileChange(path=path, new=new, old=_text(path), base=base), notes


def _declared(identity: str) -> tuple[BottleMetadata, Manifest]:
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415

    metadata = bottle_state.read_metadata(identity)
    if metadata is None:
        raise UnavailableError(f"{identity} has no metadata, so its manifest is not known")
    return metadata, Manifest.resolve(_folder(metadata))


def _folder(metadata: BottleMetadata) -> Path:
    return Path(metadata.cwd) if metadata.cwd and Path(metadata.cwd).is_dir() else Path("/")


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
