"""What an agent may ask for, read strictly from what it sent.

Everything in a request was written by the agent: it is bounded, cut to printable text and kept as text. It
is never a path, a command or a piece of policy before a human has said so.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from bot_bottle.egress.hosts import HostError, is_ip_literal, normalise_host
from bot_bottle.legible import exact, legible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bot_bottle.audit import AuditValue

Kind: TypeAlias = Literal["egress", "git", "capability", "content"]
#: What an agent asks for in its own words, and what egress asks in its place.
AGENT_KINDS: tuple[Kind, ...] = ("egress", "git", "capability")
KINDS: tuple[Kind, ...] = (*AGENT_KINDS, "content")

_MAX_REASON = 2_000
_MAX_TEXT = 4_000
_MAX_DOCKERFILE = 16 * 1024
_MAX_ITEMS = 20
_MAX_ITEM = 512
_METHOD = re.compile(r"[A-Z]{1,16}", re.ASCII)
_REMOTE = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)
_ID = re.compile(r"[a-z0-9]{8}", re.ASCII)


class RequestError(ValueError):
    """What was asked is no request; the text tells the agent what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRequest:
    """One thing an agent asks for; what its ``kind`` does not have stays empty.

    ``egress``: ``host`` (normalised; ``*.`` may lead), ``paths`` (prefixes), ``methods``. ``git``:
    ``remote``, ``refs`` and ``paths`` (patterns). ``capability``: ``text``, and ``dockerfile`` whole where an
    image should change. ``content`` is asked by egress, not by the agent: ``host``, in ``text`` what was
    found where, in ``values`` the ids of it. ``reason`` is the agent's own account of why. ``asked`` is
    seconds since the epoch.
    """

    id: str
    kind: Kind
    reason: str
    asked: int
    host: str = ""
    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    remote: str = ""
    refs: tuple[str, ...] = ()
    text: str = ""
    dockerfile: str = ""
    values: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Say in one line what is asked for."""
        match self.kind:
            case "egress":
                what = f"{' '.join(self.methods) or 'any method'} {self.host}"
                return f"{what} {' '.join(self.paths) or '(all paths)'}"
            case "git":
                return f"push to {self.remote}: {' '.join(map(exact, (*self.refs, *self.paths)))}"
            case "content":
                return f"send to {self.host} what was found: {self.text}"
            case "capability":
                return (self.text or "a change of the image").splitlines()[0]

    @property
    def subject(self) -> str:
        """What makes two requests the same, whatever reason is given: a digest."""
        parts = (self.kind, self.host, *map(list, (self.paths, self.methods, self.refs, self.values)))
        whole = json.dumps([*parts, self.remote, self.text, self.dockerfile])
        return hashlib.sha256(whole.encode()).hexdigest()

    def to_record(self) -> dict[str, AuditValue]:
        """Give the fields of the audit log's ``asked`` event."""
        return {
            "request": self.id,
            "kind": self.kind,
            "why": self.reason,
            "asked": self.asked,
            "host": self.host,
            "paths": list(self.paths),
            "methods": list(self.methods),
            "remote": self.remote,
            "refs": list(self.refs),
            "text": self.text,
            "dockerfile": self.dockerfile,
            "values": list(self.values),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> AgentRequest:
        """Read what :meth:`to_record` wrote; raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        kind, asked = record["kind"], record["asked"]
        if kind not in KINDS or type(asked) is not int:
            raise ValueError("no request")
        return cls(
            id=request_id(_str(record["request"])),
            kind=kind,
            reason=_str(record["why"]),
            asked=asked,
            host=_str(record["host"]),
            paths=_strs(record["paths"]),
            methods=_strs(record["methods"]),
            remote=_str(record["remote"]),
            refs=_strs(record["refs"]),
            text=_str(record["text"]),
            dockerfile=_str(record["dockerfile"]),
            values=_strs(record.get("values", [])),
        )


def request_id(text: str) -> str:
    """Give ``text`` if it can be a request's id (8 lower-case letters and digits); raises ``ValueError``."""
    if not _ID.fullmatch(text):
        raise ValueError("a request's id has eight lower-case letters and digits")
    return text


def read_request(kind: Kind, arguments: Mapping[str, object], *, new_id: str, now: int) -> AgentRequest:
    """Read the arguments of a tool call; raises :class:`RequestError` with a sentence for the agent."""
    if kind not in AGENT_KINDS:
        raise RequestError(f"{kind} is asked by egress alone, where a route says on_match: ask")
    keys = {
        "egress": {"host", "paths", "methods", "reason"},
        "git": {"remote", "refs", "paths", "reason"},
        "capability": {"text", "dockerfile", "reason"},
    }[kind]
    if unknown := sorted(set(map(str, arguments)) - keys):
        raise RequestError(f"unknown argument {clean(unknown[0], 40)!r}; there are {', '.join(sorted(keys))}")
    reason = _text(arguments, "reason", _MAX_REASON)
    if not reason.strip():
        raise RequestError("reason: say in a sentence what it is needed for; a human reads it")
    asked = AgentRequest(id=new_id, kind=kind, reason=reason, asked=now)
    fill: dict[Kind, Callable[[AgentRequest, Mapping[str, object]], AgentRequest]] = {
        "egress": _egress,
        "git": _git,
        "capability": _capability,
    }
    return fill[kind](asked, arguments)


def clean(text: str, most: int, *, tabs: bool = False) -> str:
    """Make an agent's text fit to be shown: printable characters and line feeds, at most ``most``.

    ``tabs`` are kept where they mean something (a file's content), and are spaces elsewhere.
    """
    kept = "\n\t" if tabs else "\n"
    some = text[: most + 1] if tabs else text[: most + 1].replace("\t", " ")
    shown = legible(some, keep=kept)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _egress(asked: AgentRequest, arguments: Mapping[str, object]) -> AgentRequest:
    host = _text(arguments, "host", 260).strip()
    name = host.removeprefix("*.")
    try:
        normal = normalise_host(name)
    except HostError as error:
        raise RequestError(
            f"host: {error}; write a name like docs.example.org, without scheme or port"
        ) from None
    if is_ip_literal(normal) or "." not in normal:
        raise RequestError("host: write a name like docs.example.org; addresses cannot be asked for")
    methods = tuple(dict.fromkeys(method.upper() for method in _items(arguments, "methods")))
    if not all(_METHOD.fullmatch(method) for method in methods):
        raise RequestError("methods: write a list of HTTP methods like GET and HEAD")
    paths = _items(arguments, "paths")
    if not all(path.startswith("/") and path.isascii() and " " not in path for path in paths):
        raise RequestError("paths: write a list of path prefixes that begin with '/'")
    return replace(
        asked, host=f"*.{normal}" if host.startswith("*.") else normal, paths=paths, methods=methods
    )


def _git(asked: AgentRequest, arguments: Mapping[str, object]) -> AgentRequest:
    remote = _text(arguments, "remote", 100)
    if not _REMOTE.fullmatch(remote):
        raise RequestError("remote: write the name of one of the bottle's git remotes")
    refs, paths = _items(arguments, "refs"), _items(arguments, "paths")
    if not refs and not paths:
        raise RequestError("refs or paths: write what should be allowed, like refs/heads/fix-12")
    return replace(asked, remote=remote, refs=refs, paths=paths)


def _capability(asked: AgentRequest, arguments: Mapping[str, object]) -> AgentRequest:
    text = _text(arguments, "text", _MAX_TEXT)
    dockerfile = _text(arguments, "dockerfile", _MAX_DOCKERFILE, tabs=True)
    if not text.strip() and not dockerfile.strip():
        raise RequestError("text or dockerfile: say what is missing, or give the whole changed Dockerfile")
    return replace(asked, text=text, dockerfile=dockerfile)


def _text(arguments: Mapping[str, object], name: str, most: int, *, tabs: bool = False) -> str:
    value = arguments.get(name) or ""
    if not isinstance(value, str):
        raise RequestError(f"{name}: write text")
    if len(value) > most:
        raise RequestError(f"{name}: at most {most} characters; it has {len(value)}")
    return clean(value, most, tabs=tabs)


def _items(arguments: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = arguments.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RequestError(f"{name}: write a list of texts")
    if len(value) > _MAX_ITEMS or any(not 0 < len(item) <= _MAX_ITEM for item in value):
        raise RequestError(f"{name}: at most {_MAX_ITEMS} texts of 1 to {_MAX_ITEM} characters")
    if not all(item.isprintable() for item in value):
        raise RequestError(f"{name}: printable characters only")
    return tuple(dict.fromkeys(value))


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _strs(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("expected a list of texts")
    return tuple(_str(item) for item in value)
