"""What an audit record may say: every event, its fields and what they mean.

The log's own form, and what each line holds besides, is described in :mod:`bot_bottle.audit`. docs/audit.md
is made of this catalogue, and tests hold every record they read against it; nothing that runs needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Every record's own, whatever the event.
CHAIN_FIELDS = {
    "seq": "number of the record, from 0",
    "time": "UTC, RFC 3339 with microseconds",
    "event": "one of those below",
    "prev": "`hash` of the record before; 64 zeros in the first",
    "hash": "SHA-256 of the record's canonical JSON (sorted keys, no spaces, ASCII) without `hash`",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: its JSON type (``string``, ``number``, ``boolean``, ``strings``, with ``?`` where it may be
    null or missing) and its meaning.
    """

    type: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event: what it means, and its fields by name."""

    meaning: str
    fields: Mapping[str, Field]


def _fields(**given: str) -> dict[str, Field]:
    """Read ``name="type: meaning"``."""
    found = {}
    for name, text in given.items():
        kind, _, meaning = text.partition(": ")
        found[name] = Field(type=kind, meaning=meaning)
    return found


_HOST = "string: the host asked for, in its one normal spelling"
_TOLD = {
    "reason": "string?: why it was refused; docs/denials.md lists them",
    "message": "string?: the same in a sentence, as the agent is told it",
}
_REFS = "strings: each change asked for, as `ACTION REF OLD..NEW`"
#: What was found in a request that went on all the same.
_FOUND = _fields(
    host=_HOST,
    method="string: as sent",
    reason="string: what kind of value, or why it could not be read",
    rule="string: the scanner's rule",
    place="string: where in the request, such as a header's name",
    count="number: how many",
)

EVENTS: dict[str, Event] = {
    "start": Event(
        meaning="The sidecar is up.",
        fields=_fields(
            identity="string: the bottle's",
            routes="number: how many it begins with",
            pid="number: the sidecar's process id, in its own pid namespace",
        ),
    ),
    "session": Event(
        meaning="What became of the agent's session, as the launcher tells it.",
        fields=_fields(
            state="string: `started`, `resumed`, `attached`, `detached`, `frozen`, `thawed`, `timed out` "
            "or `ended`",
            exit_code="number?: the agent's, with `ended`",
        ),
    ),
    "request": Event(
        meaning="A request through egress was decided; written before anything of it is sent.",
        fields=_fields(
            decision="string: `allow`, `deny`, or `error` where it was allowed and could not be carried out",
            **_TOLD,
            rule="string: the route or the check that decided",
            scheme="string: `http` or `https`; empty where that was not known yet",
            method="string: as sent",
            host=_HOST + "; withheld where it carries a secret",
            port="number: 0 where none was known yet",
            path="string: without the query, at most 1,024 characters; withheld where it carries a secret",
            via="string: `connect`, `absolute`, `transparent`, `interceptor`, `local`, or empty",
            injected="string?: name of the credential that was added",
        ),
    ),
    "redacted": Event(
        meaning="Values were overwritten in a request that went on (`on_match: redact`).",
        fields=_FOUND,
    ),
    "stripped": Event(
        meaning="A credential stood in a header that no bottle may present, and was left out.",
        fields=_FOUND,
    ),
    "unread": Event(
        meaning="Content passed unread, by the word of its route.",
        fields=_FOUND,
    ),
    "answer": Event(
        meaning="Something was done to a server's answer.",
        fields=_fields(host=_HOST, message="string: what, in a sentence"),
    ),
    "content_warning": Event(
        meaning="A server's answer holds text that orders an agent about.",
        fields=_fields(
            host=_HOST,
            rule="string: which form of words",
            message="string: what it was known by",
            action="string: `passed on` or `held back`",
        ),
    ),
    "second_hop": Event(
        meaning="The external pipelock program was started anew, or could not be.",
        fields=_fields(message="string: why, in a sentence"),
    ),
    "usage": Event(
        meaning="A model provider's answer said how much it used.",
        fields=_fields(
            host=_HOST,
            model="string: as the provider names it; empty where it does not",
            input_tokens="number: all of the prompt",
            cached_tokens="number: the part of it that was read from a cache",
            output_tokens="number: all that was made",
        ),
    ),
    "credential_refused": Event(
        meaning="A server answered 401 or 403 to a request that was given a credential on its way out.",
        fields=_fields(
            decision="string: `refused`, by the server",
            host=_HOST,
            credential="string: its name",
            status="number: 401 or 403",
            count="number: how many of this route's answers did so since the sidecar started",
            message="string: what that may mean",
        ),
    ),
    "websocket": Event(
        meaning="An upgraded connection ended; how much went over it.",
        fields=_fields(
            host=_HOST,
            sent_messages="number: whole messages of the agent's",
            sent_binary="number: of these, binary ones",
            sent_bytes="number: their content",
            received_messages="number: whole messages of the server's",
            received_binary="number: of these, binary ones",
            received_bytes="number: their content",
        ),
    ),
    "dns": Event(
        meaning="A name was asked for, the first time; the answer is always the sidecar's own address.",
        fields=_fields(
            name="string: empty where further ones are not listed, withheld where it carries a secret",
            decision="string: `answered`",
            message="string?: that further names are not listed",
        ),
    ),
    "tls_failed": Event(
        meaning="A client came to no TLS connection with the sidecar; mostly it does not trust the CA.",
        fields=_fields(
            host="string: the host it claimed to want",
            port="number: the port it came to",
            via="string: as in `request`",
            message="string: what happened",
        ),
    ),
    "interceptor": Event(
        meaning="A connection without this launch's token came to the port that a microVM's engine uses.",
        fields=_fields(
            decision="string: `deny`",
            reason="string: what it lacked",
            message="string?: that further ones are not listed",
        ),
    ),
    "git_fetch": Event(
        meaning="The git gate was asked for a repository.",
        fields=_fields(
            remote="string?: which of `git.remotes`",
            rule="string: the manifest's key",
            decision="string: `allow`, `deny`, or `error` where the upstream did not answer",
            **_TOLD,
        ),
    ),
    "git_push": Event(
        meaning="The git gate decided a push; written before the upstream hears of it.",
        fields=_fields(
            remote="string: which of `git.remotes`",
            refs=_REFS,
            decision="string: `allow` or `deny`",
            rule="string: the manifest's key, or the check that refused",
            **_TOLD,
        ),
    ),
    "git_push_result": Event(
        meaning="What the upstream made of a push that was let through.",
        fields=_fields(
            remote="string: which of `git.remotes`",
            refs=_REFS,
            taken="boolean: whether it took all of it",
            message="string: its words where it did not",
        ),
    ),
    "asked": Event(
        meaning="The agent asked the operator for something (docs/supervise.md).",
        fields=_fields(
            request="string: its id",
            kind="string: `egress`, `git`, `capability` or `content`",
            why="string: the agent's own reason",
            asked="number: Unix time in seconds",
            host="string: the host wanted",
            paths="strings: the paths wanted",
            methods="strings: the methods wanted",
            remote="string: the git remote wanted",
            refs="strings: the refs wanted",
            text="string: what else is wanted",
            dockerfile="string: the change of an image that is wanted",
            values="strings: digests of the values that content is asked about",
        ),
    ),
    "answered": Event(
        meaning="The operator answered a request.",
        fields=_fields(
            request="string: the id of the request",
            verdict="string: `approved`, `changed` or `denied`",
            words="string: what the agent is told",
            terms="string: for how long, or how often",
            grant="string: what is open now, as JSON; empty where nothing is",
        ),
    ),
    "used": Event(
        meaning="A grant that counts was used.",
        fields=_fields(request="string: the id of the request it came from"),
    ),
    "reload": Event(
        meaning="Routes were changed while the bottle ran.",
        fields=_fields(
            decision="string: `applied` or `refused`",
            message="string?: why it was refused",
            before="strings?: routes that no longer hold, in a line each",
            after="strings?: routes that hold now, in a line each",
            before_sha256="string?: of the whole table before",
            after_sha256="string?: of the whole table now",
            routes="number?: how many there are now",
            credentials="strings?: names of credentials that came or changed",
        ),
    ),
    "credential": Event(
        meaning="Credentials were renewed while the bottle ran, or have ended without.",
        fields=_fields(
            decision="string: `renewed` or `expired`",
            credentials="strings: their names",
            message="string?: what that means for requests; that an early value is guarded no more",
        ),
    ),
    "panic": Event(
        meaning="Everything was stopped, or let go on.",
        fields=_fields(
            decision="string: `deny` or `lifted`",
            **_TOLD,
        ),
    ),
    "pull": Event(
        meaning="Work was brought home; in a log of its own, `audit/operator/IDENTITY.jsonl`.",
        fields=_fields(
            decision="string: `allow` or `deny`",
            reason="string: why it was refused; empty where it was not",
            repository="string: the operator's repository",
            branch="string: the branch that was to move",
            old="string: its commit before; empty where there was none",
            new="string: its commit now",
            uncommitted="boolean: whether what was not committed came as a commit",
            findings="strings: what the scan found, values masked",
            accepted_findings="boolean: whether the operator took it in spite of them",
        ),
    ),
    "recovered": Event(
        meaning="The line before was torn by a crash or a full disk; the chain goes on from the one before.",
        fields=_fields(
            torn_sha256="string: of the torn line's bytes",
            torn_bytes="number: how many they are",
        ),
    ),
    "end": Event(meaning="The log was closed in order. Without it, it was cut off.", fields={}),
}


def deviations(record: Mapping[str, object]) -> list[str]:
    """Say how a record is not as the catalogue has it; nothing where it is."""
    event = EVENTS.get(str(record.get("event")))
    if event is None:
        return [f"the event {record.get('event')!r} is not in the catalogue"]
    found = [f"{name} is missing" for name in CHAIN_FIELDS if name not in record]
    for name, field in event.fields.items():
        value = record.get(name)
        optional = field.type.endswith("?")
        if value is None and optional:
            continue
        if not _is_a(field.type.rstrip("?"), value):
            found.append(f"{name} is {value!r} and no {field.type}")
    found += [
        f"{name} is not in the catalogue"
        for name in record
        if name not in event.fields and name not in CHAIN_FIELDS
    ]
    return [f"{record.get('event')}: {one}" for one in found]


def _is_a(kind: str, value: object) -> bool:
    if kind == "strings":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    types = {"string": str, "number": int, "boolean": bool}
    return type(value) is types[kind]
