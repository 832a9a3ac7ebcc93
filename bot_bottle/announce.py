"""The operator is told of what an agent asks for and of credentials that ended: by a command, on a desktop.

A thread of the launcher hears the bottle's events. What the agent wrote reaches the command as JSON on its
standard input, cut to printable text, and never as an argument; what the desktop is shown holds none of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from bot_bottle import paths, process, refused_credentials
from bot_bottle.control_client import ControlClient, NotReachableError
from bot_bottle.errors import BotBottleError
from bot_bottle.events import LogReader
from bot_bottle.supervise.record import ASKED
from bot_bottle.supervise.request import AgentRequest, clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from bot_bottle.audit_chain import Record
    from bot_bottle.backend.plan import BottlePlan
    from bot_bottle.secret import Secret

#: How long one command may take, in seconds.
RUN_SECONDS = 10.0
#: At most so many requests are announced within so many seconds; an agent can ask faster than a human reads.
PACE = 10
PACE_SECONDS = 60.0
#: How long the end of a session waits for a command that runs, in seconds.
_END_SECONDS = 2.0
_AGAIN_SECONDS = 0.2
_MAX_CHARS = 20_000
_DESKTOP = "notify-send"


def announcer_for(plan: BottlePlan, say: Callable[[str], None] | None = None) -> Announcer:
    """Make what tells the operator of the requests of ``plan``'s bottle, from now on."""
    return Announcer(
        plan.identity,
        on_request=plan.on_request,
        notify=plan.notify,
        about={"agent": plan.spec.agent_name, "bottle": plan.bottle.name, "backend": plan.backend_name},
        env=_without_its_own(plan),
        say=say,
    )


def _without_its_own(plan: BottlePlan) -> dict[str, str]:
    """Give the operator's environment without what the bottle's parts hold, by name and by value."""
    proxy, bottle = plan.upstream_proxy, plan.bottle
    tokens = (remote.token for remote in plan.git_remotes)
    password = (proxy.password,) if proxy is not None and proxy.password else ()
    names = {
        *plan.secrets,
        *plan.marked,
        *plan.provision.provisioned_env,
        *bottle.guard,
        *(remote.token_ref for remote in bottle.git.remotes),
        proxy.password_ref if proxy is not None else "",
    }
    held = (*plan.secrets.values(), *plan.marked.values(), *tokens, *password)
    return without_secrets(os.environ, held, names=names)


def without_secrets(
    env: Mapping[str, str], secrets: Iterable[Secret], *, names: Iterable[str] = ()
) -> dict[str, str]:
    """Give an environment without variables of ``names``, and without those that hold one of ``secrets``.

    White space around a value makes no other one of it: what is read from a file often ends its line.
    """
    left_out = frozenset(names)
    values = {secret.reveal().strip() for secret in secrets} - {""}
    return {
        name: value for name, value in env.items() if name not in left_out and value.strip() not in values
    }


def details(request: AgentRequest, identity: str, about: Mapping[str, str]) -> bytes:
    """Give what the command reads: one JSON object, its texts printable but for line feeds."""
    obj: dict[str, object] = {
        "identity": identity,
        **about,
        **request.to_record(),
        "summary": request.summary,
    }
    return json.dumps({name: _clean(value) for name, value in obj.items()}).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Word:
    """One thing to tell: ``name`` stands for it where that fails, ``given`` is what the command reads."""

    name: str
    given: bytes
    desktop: str


def _asked(record: Record, identity: str, about: Mapping[str, str]) -> Iterator[_Word]:
    request = AgentRequest.from_record(record)
    words = f"asks for {request.kind} ({request.id}); see: bot-bottle requests"
    yield _Word(name=request.id, given=details(request, identity, about), desktop=words)


def _ended(record: Record, identity: str, about: Mapping[str, str]) -> Iterator[_Word]:
    if record["decision"] != "expired":
        return
    for name in _names(record["credentials"]):
        summary = f"the credential {name} has ended"
        obj = {
            "identity": identity,
            **about,
            "request": "",
            "kind": "credential",
            "credential": name,
            "summary": summary,
            "why": str(record.get("message", "")),
        }
        given = json.dumps({key: _clean(value) for key, value in obj.items()}).encode() + b"\n"
        yield _Word(name=name, given=given, desktop=f"{summary}: what needs it is refused")


def _refused(record: Record, identity: str, about: Mapping[str, str]) -> Iterator[_Word]:
    if record["count"] != 1:
        return  # one word for each route and session: an agent tries again and again
    name, host, status = str(record["credential"]), str(record["host"]), record["status"]
    obj = {
        "identity": identity,
        **about,
        "request": "",
        "kind": "credential",
        "credential": name,
        "host": host,
        "summary": f"{host} refused the credential {name} ({status})",
        "why": str(record["message"]),
    }
    given = json.dumps({key: _clean(value) for key, value in obj.items()}).encode() + b"\n"
    words = f"the credential {name} was refused ({status}); see: bot-bottle info {identity}"
    yield _Word(name=name, given=given, desktop=words)


def _names(found: object) -> Iterator[str]:
    if isinstance(found, list):
        yield from map(str, found)


#: What is told of each event.
_TOLD = {ASKED: _asked, "credential": _ended, refused_credentials.EVENT: _refused}


def _clean(value: object) -> object:
    if isinstance(value, str):
        return clean(value, _MAX_CHARS)
    return [_clean(one) for one in value] if isinstance(value, list) else value


class Announcer:
    """Tells of one bottle's requests while its session lasts; a context manager around it."""

    def __init__(
        self,
        identity: str,
        *,
        on_request: Sequence[str] = (),
        notify: bool = False,
        about: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        say: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``about`` is what the command is told of the bottle besides, ``env`` its whole environment.

        ``say`` tells the operator of what could not be done; by default on stderr.
        """
        self._identity = identity
        self._on_request = tuple(on_request)
        self._notify = notify
        self._about = dict(about or {})
        self._env = dict(env or {})
        self._say = say or _say
        self._clock = clock
        self._times: deque[float] = deque()
        self._missing: set[str] = set()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._client: ControlClient | None = None
        self._command: process.BoundedCommand | None = None
        self._thread = threading.Thread(target=self._hear, name="announcer", daemon=True)

    def __enter__(self) -> Self:
        path = paths.audit_path(self._identity)
        self._reader = LogReader(path, offset=_size(path), events=list(_TOLD))
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._lock:
            self._over.set()
            if self._client is not None:
                self._client.hang_up()
        self._thread.join(_END_SECONDS)
        if self._thread.is_alive():
            with self._lock:
                if self._command is not None:
                    self._command.kill()
            self._thread.join(_END_SECONDS)

    def _hear(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(NotReachableError, BotBottleError, OSError):
                self._listen()
            self._over.wait(_AGAIN_SECONDS)

    def _listen(self) -> None:
        """Hear what comes until the sidecar or the session ends; a slow command costs nothing but time.

        A reader that is dropped meanwhile goes on from its offset.
        """
        with ControlClient.connect(self._identity) as client:
            with self._lock:
                if self._over.is_set():
                    return
                self._client = client
            try:
                for data in client.events(self._reader.offset):
                    self._announce(self._reader.take(data))
            finally:
                with self._lock:
                    self._client = None

    def _announce(self, records: Iterable[Record]) -> None:
        for record in records:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a record of another version
                for word in _TOLD[str(record["event"])](record, self._identity, self._about):
                    self._tell(word)

    def _tell(self, word: _Word) -> None:
        now = self._clock()
        while self._times and now - self._times[0] >= PACE_SECONDS:
            self._times.popleft()
        if len(self._times) >= PACE:
            self._say(f"{word.name}: not announced, since more than {PACE} requests came within a minute")
            return
        self._times.append(now)
        if self._on_request:
            self._run(self._on_request, word.given, word.name, "on_request")
        if self._notify:
            argv = (_DESKTOP, "--app-name=bot-bottle", "--", self._identity, word.desktop)
            self._run(argv, b"", word.name, "notify")

    def _run(self, argv: Sequence[str], given: bytes, name: str, key: str) -> None:
        if self._over.is_set():
            return
        try:
            command = process.BoundedCommand(argv, env=self._env)
        except OSError as error:
            if key in self._missing:
                return
            self._missing.add(key)
            why = error.strerror or str(error)
            self._say(f"{name}: {key} of config.toml: {argv[0]} cannot be run: {why}")
            return
        with self._lock:
            self._command = command
        try:
            code = command.finish(given, RUN_SECONDS)
        finally:
            with self._lock:
                self._command = None
        if code is None:
            self._say(f"{name}: {key} of config.toml: {argv[0]} was ended after {RUN_SECONDS:g} s")
        elif code and not self._over.is_set():
            self._say(f"{name}: {key} of config.toml: {argv[0]} ended with exit code {code}")


def _size(path: os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - takes whatever names a path
    except OSError:
        return 0


def _say(text: str) -> None:
    safe = "".join(char if char.isprintable() else "?" for char in text)
    print(f"bot-bottle: {safe}", file=sys.stderr, flush=True)
