"""State folders: one an identity, private, atomic, and readable by every later version.

``state/<identity>/`` holds ``metadata.json``, the agent's ``home`` and ``workspace``, and ``preserve`` while
there is work worth keeping. The launcher holds ``lock`` for as long as the bottle lives, so "running" is
never a guess: the kernel releases the lock however the launcher ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import time
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.errors import AlreadyRunningError, LaunchError, UsageError
from bot_bottle.files import PRIVATE_FILE, make_private_dir, remove_tree, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUFFIX_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_SUFFIX_LENGTH = 5
IDENTITY_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,62}-[a-z0-9]{5}")
_METADATA = "metadata.json"
_PRESERVE = "preserve"
_LOCK = "lock"
_TERMINAL = "terminal"
_MAX_METADATA = 1 << 20
#: The form of a state folder; 0 is that of folders older than this number. A later one may be listed and
#: removed, and is for a later version to go on with.
STATE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleMetadata:
    """What ``resume`` and ``list`` need to know of one launch.

    ``backend`` is empty in files older than the field, and empty means docker. ``started_at`` is UTC in
    ISO 8601. ``exit_code`` is that of the last session, None while there was none; ``ended`` says in words
    how that session came to its end. ``version`` is the form of the folder.
    """

    identity: str
    agent_name: str = ""
    bottle_name: str = ""
    cwd: str = ""
    copy_cwd: bool = False
    started_at: str = ""
    compose_project: str = ""
    backend: str = ""
    exit_code: int | None = None
    ended: str = ""
    version: int = STATE_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleStateSummary:
    """One state folder as ``list`` shows it; ``status`` is ``running``, ``preserved`` or ``unfinished``,
    or ``ended`` where nothing but its log is left. ``detached`` tells of a running one that has no terminal.
    """

    identity: str
    metadata: BottleMetadata | None
    status: str
    detached: bool = False

    @property
    def word(self) -> str:
        """The status in one word, as every listing shows it (docs/running.md)."""
        return "detached" if self.detached else self.status


def bottle_state_dir(identity: str) -> Path:
    """Give the identity's state folder; raises ``UsageError`` for what cannot be an identity."""
    if not IDENTITY_PATTERN.fullmatch(identity):
        raise UsageError(no_state(identity))
    return paths.state_dir(identity)


def new_identity(agent_name: str) -> str:
    """Draw ``<agent>-<5 random characters>``; free at this moment, claimed by :func:`create_state`."""
    while True:
        suffix = "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(_SUFFIX_LENGTH))
        identity = f"{agent_name}-{suffix}"
        if not paths.state_dir(identity).exists() and not paths.audit_path(identity).exists():
            return identity


def create_state(metadata: BottleMetadata) -> Path:
    """Claim a new state folder and write its metadata.

    Raises ``UsageError`` where it exists already, ``LaunchError`` where it cannot be written (a full disk, a
    file system mounted read-only); nothing is left of it then.
    """
    folder = bottle_state_dir(metadata.identity)
    try:
        make_private_dir(folder.parent)
        folder.mkdir(mode=0o700)
    except FileExistsError as error:
        raise UsageError(
            f"state of {metadata.identity} exists already; resume it or choose another"
        ) from error
    except OSError as error:
        raise LaunchError(f"{folder}: the bottle's state cannot be made: {error.strerror}") from error
    try:
        write_metadata(metadata)
    except BaseException as error:
        with contextlib.suppress(OSError):
            folder.rmdir()  # a write that fails leaves no file
        if isinstance(error, OSError):
            raise LaunchError(f"{folder}: the bottle's state cannot be written: {error.strerror}") from error
        raise
    return folder


def write_metadata(metadata: BottleMetadata) -> None:
    """Write the metadata atomically, readable by the operator alone."""
    obj = {field.name: getattr(metadata, field.name) for field in fields(metadata)}
    obj["version"] = max(STATE_VERSION, metadata.version)
    data = json.dumps(obj, indent=2, sort_keys=True) + "\n"
    write_atomic(bottle_state_dir(metadata.identity) / _METADATA, data.encode())


def read_metadata(identity: str) -> BottleMetadata | None:
    """Read an identity's metadata, tolerating missing and unknown fields; None where there is none.

    Raises ``UsageError`` for a file that is not ours to understand (no JSON object).
    """
    path = bottle_state_dir(identity) / _METADATA
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(_MAX_METADATA)
    try:
        obj = json.loads(data)
    except ValueError as error:
        raise UsageError(
            f"{path}: not valid JSON; remove the state with `bot-bottle cleanup --all`"
        ) from error
    if not isinstance(obj, dict):
        raise UsageError(f"{path}: expected a JSON object; remove the state with `bot-bottle cleanup --all`")
    return BottleMetadata(
        identity=identity,
        agent_name=_text(obj.get("agent_name")),
        bottle_name=_text(obj.get("bottle_name")),
        cwd=_text(obj.get("cwd")),
        copy_cwd=obj.get("copy_cwd") is True,
        started_at=_text(obj.get("started_at")),
        compose_project=_text(obj.get("compose_project")),
        backend=_text(obj.get("backend")),
        exit_code=obj["exit_code"] if type(obj.get("exit_code")) is int else None,
        ended=_text(obj.get("ended")),
        version=obj["version"] if type(obj.get("version")) is int else 0,
    )


def require_metadata(identity: str) -> BottleMetadata:
    """Give what is recorded of an identity; raises ``UsageError`` that names those that exist."""
    metadata = read_metadata(identity)
    if metadata is None:
        raise UsageError(no_state(identity))
    return metadata


def no_state(identity: str) -> str:
    """Say that there is no such bottle, and which there are."""
    from bot_bottle.no_identity import no_identity  # noqa: PLC0415 - it looks at all states there are

    return no_identity(identity)


def require_state(identity: str) -> None:
    """Raise ``UsageError`` where an identity has no state folder, whatever can be read of one."""
    if not bottle_state_dir(identity).is_dir():
        raise UsageError(no_state(identity))


def require_running(identity: str) -> BottleMetadata:
    """Give a running bottle's metadata; raises ``UsageError`` for one that is not there or does not run."""
    metadata = require_metadata(identity)
    if not is_running(identity):
        raise UsageError(not_running(identity))
    return metadata


def not_running(identity: str) -> str:
    """Say that a bottle has ended, and how to go on with it."""
    return f"{identity} does not run any more; go on with: bot-bottle resume {identity}"


def require_stopped(identity: str) -> BottleMetadata:
    """Give a kept bottle's metadata; raises ``UsageError`` for one that is not there or runs."""
    metadata = require_metadata(identity)
    if is_running(identity):
        join = f"join it: bot-bottle attach {identity}; or " if is_detached(identity) else ""
        raise UsageError(f"{identity} is running; {join}end its session first: bot-bottle stop {identity}")
    if metadata.version > STATE_VERSION:
        raise UsageError(
            f"{identity} was made by a later version of bot-bottle (its state has form {metadata.version}; "
            f"{STATE_VERSION} is known here): go on with it there; diff, pull and rm work here"
        )
    return metadata


def mark_preserved(identity: str) -> None:
    """Keep this state until the operator removes it."""
    write_atomic(bottle_state_dir(identity) / _PRESERVE, b"")


def is_preserved(identity: str) -> bool:
    """Tell whether the state holds work to keep."""
    return (bottle_state_dir(identity) / _PRESERVE).exists()


def clear_preserve_marker(identity: str) -> None:
    """Let the state be removed at the next settle or cleanup."""
    (bottle_state_dir(identity) / _PRESERVE).unlink(missing_ok=True)


def cleanup_state(identity: str) -> None:
    """Remove the state folder; no error where it is gone already."""
    folder = bottle_state_dir(identity)
    # The metadata goes last, so that an interrupted removal is still known to `list` and `cleanup`.
    if folder.is_dir() and not folder.is_symlink():
        for child in folder.iterdir():
            if child.name not in {_METADATA, _LOCK}:
                remove_tree(child)
    remove_tree(folder)


@contextlib.contextmanager
def hold_lock(identity: str) -> Iterator[None]:
    """Hold the identity's lock while the body runs; raises ``AlreadyRunningError`` where another has it."""
    path = bottle_state_dir(identity) / _LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        _take_lock(descriptor, identity)
        with contextlib.suppress(OSError):  # a full disk; only `stop` would need it
            os.pwrite(descriptor, b"%-11d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)


def is_running(identity: str) -> bool:
    """Tell whether a launcher holds this identity at this moment."""
    try:
        # For reading, so that who watches the file for its launcher's letting go does not hear of this look.
        descriptor = os.open(bottle_state_dir(identity) / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def is_detached(identity: str) -> bool:
    """Tell whether a running bottle's terminal is held by its launcher, to be attached to."""
    return (bottle_state_dir(identity) / _TERMINAL).is_socket()


def launcher_of(identity: str) -> int | None:
    """Give the process that holds this identity; None where nothing does, or that cannot be proven.

    The lock's file says who took it and the kernel (``/proc/locks``, proc(5)) that this very process has it:
    what a killed launcher left in the file may be anybody's number by now.
    """
    path = bottle_state_dir(identity) / _LOCK
    try:
        pid, inode = int(path.read_bytes()), path.stat().st_ino
        # 1: FLOCK  ADVISORY  WRITE 4242 fd:01:1835017 0 EOF
        held = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
    except (OSError, ValueError):
        return None
    for _number, kind, *rest in held:
        if kind == "FLOCK" and rest[2] == str(pid) and rest[3].rpartition(":")[2] == str(inode):
            return pid
    return None


def list_states() -> tuple[BottleStateSummary, ...]:
    """List every state folder, oldest identity name first; folders that are not ours are passed over."""
    try:
        names = sorted(
            entry.name for entry in os.scandir(paths.state_root()) if entry.is_dir(follow_symlinks=False)
        )
    except FileNotFoundError:
        return ()
    return tuple(state_of(name) for name in names if IDENTITY_PATTERN.fullmatch(name))


def list_ended() -> tuple[BottleStateSummary, ...]:
    """List the bottles of which nothing but their logs is left, with what the logs' first lines tell."""
    try:
        names = sorted(entry.name for entry in os.scandir(paths.audit_path("x").parent))
    except FileNotFoundError:
        return ()
    identities = (name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl"))
    return tuple(
        BottleStateSummary(identity=identity, metadata=_from_log(identity), status="ended")
        for identity in identities
        if IDENTITY_PATTERN.fullmatch(identity) and not paths.state_dir(identity).exists()
    )


def _from_log(identity: str) -> BottleMetadata:
    """Give what is still known of a bottle that is gone."""
    started = ""
    with contextlib.suppress(OSError, ValueError), paths.audit_path(identity).open("rb") as log:
        first = json.loads(log.readline(_MAX_METADATA))
        started = _text(first.get("time")) if isinstance(first, dict) else ""
    # The agent's name is what stands before the five characters drawn for the launch.
    return BottleMetadata(identity=identity, agent_name=identity[:-6], started_at=started)


def utc_now() -> str:
    """Give the present moment as metadata stores it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _take_lock(descriptor: int, identity: str) -> None:
    # `is_running` of another process holds a shared lock for an instant, so one refusal proves nothing.
    for pause in (0.02, 0.05, 0.1, None):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if pause is None:
                raise AlreadyRunningError(f"{identity} is running already") from error
            time.sleep(pause)
        else:
            return


def how_it_ended(state: BottleStateSummary) -> str | None:
    """Say how the last session of a bottle that does not run came to its end.

    None where it runs, none has been, or nothing is known of it.
    """
    if state.status != "preserved" or state.metadata is None:
        return None
    if state.metadata.ended or state.metadata.exit_code is not None:
        return state.metadata.ended or f"the agent ended with exit code {state.metadata.exit_code}"
    return "the session ended without a word: its launcher was killed, or the machine went down"


def state_of(identity: str) -> BottleStateSummary:
    """Look at one state folder; what cannot be read of it is left out."""
    try:
        metadata = read_metadata(identity)
    except (UsageError, OSError):
        metadata = None
    try:
        idle_status = "preserved" if is_preserved(identity) else "unfinished"
        status = "running" if is_running(identity) else idle_status
    except OSError:
        # One folder that cannot be looked into does not hide the others, and is removed on request only.
        status = "preserved"
    return BottleStateSummary(
        identity=identity,
        metadata=metadata,
        status=status,
        detached=status == "running" and is_detached(identity),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
