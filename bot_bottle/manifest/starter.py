"""The first bottle and agent of an operator, written from a few answers. Pure: answers in, texts out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError
from bot_bottle.manifest.build import agent_from_text, bottle_from_text
from bot_bottle.manifest.extends import resolve_bottles
from bot_bottle.manifest.remotes import parse_upstream

if TYPE_CHECKING:
    from collections.abc import Callable


_PROMPT = """\
You work on the project in the current folder. Make the smallest change that does what is asked, run its
tests, and say what you changed and what you could not check. When a request is refused with
`bot_bottle_denied`, say which host or path you need and why; do not look for a way around it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterRemote:
    """A git remote. ``token_ref`` is for https, the last two are for ssh; without them nothing is pushed."""

    upstream: str
    token_ref: str = ""
    identity_file: str = ""
    known_host_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What ``init`` was told. ``auth_token`` and ``api_key`` are variables' names; ``argv`` a plain command.

    ``forward_host_credentials`` is set for providers that can use the login of this host. ``git_user`` is the
    name and the email that commits are from; either may be empty.
    """

    name: str
    template: str
    auth_token: str = ""
    api_key: str = ""
    argv: tuple[str, ...] = ()
    forward_host_credentials: bool = False
    hosts: tuple[str, ...] = ()
    remote: StarterRemote | None = None
    git_user: tuple[str, str] = ("", "")


def starter_files(answers: Answers) -> tuple[str, str]:
    """Write the bottle's and the agent's file; raises ``ManifestError`` where they would not pass."""
    bottle, agent = _bottle(answers), _agent(answers.name)
    file = bottle_from_text(answers.name, Path(f"{answers.name}.md"), bottle)
    _, errors = resolve_bottles({answers.name: file}, {})
    for error in errors.values():
        raise error
    agent_from_text(answers.name, Path(f"{answers.name}.md"), agent, "operator")
    return bottle, agent


def checked(check: Callable[[str], object], text: str, what: str) -> str:
    """Give ``text`` if ``check`` accepts it; raises ``UsageError`` with its sentence otherwise."""
    try:
        check(text)
    except ValueError as error:
        raise UsageError(f"{what} {error}") from error
    return text


def upstream_of(url: str) -> str:
    """Write a repository's remote the way manifests do; ``""`` for one that a bottle cannot use.

    The short form ``git@host:path`` becomes an ssh URL; a user part of an https URL, often a credential, is
    left out.
    """
    text = url.strip()
    if text.startswith("https://"):
        authority, slash, path = text.removeprefix("https://").partition("/")
        text = f"https://{authority.rpartition('@')[2]}{slash}{path}"
    elif "://" not in text and ":" in text:
        place, _, path = text.partition(":")
        text = f"ssh://{place}/{path.lstrip('/')}"
    try:
        parse_upstream(text)
    except ValueError:
        return ""
    return text


def _bottle(answers: Answers) -> str:
    lines = ["---", "agent_provider:", f"  template: {answers.template}"]
    for key, variable in (("auth_token", answers.auth_token), ("api_key", answers.api_key)):
        if variable:
            lines.append(f"  {key}: {variable}   # a variable of this host, never the credential itself")
    if answers.forward_host_credentials:
        lines.append("  forward_host_credentials: true   # egress adds what this host is logged in with")
    if answers.argv:
        lines.append(f"  argv: [{', '.join(_quoted(part) for part in answers.argv)}]")
    if answers.hosts:
        lines += ["egress:", "  routes:", *(f"    - host: {_quoted(host)}" for host in answers.hosts)]
    author = [
        f"{key}: {_quoted(text)}"
        for key, text in zip(("name", "email"), answers.git_user, strict=True)
        if text
    ]
    if author or answers.remote:
        lines.append("git:")
    if author:
        lines.append(f"  user: {{{', '.join(author)}}}   # who its commits are from")
    if answers.remote:
        remote = answers.remote
        parts = parse_upstream(remote.upstream)
        label = parts.path.rstrip("/").rpartition("/")[2].removesuffix(".git") or "project"
        lines += [
            "  remotes:",
            f"    {_quoted(parts.host)}:",
            f"      Name: {_quoted(label)}",
            f"      Upstream: {_quoted(remote.upstream)}",
        ]
        if remote.token_ref:
            lines.append(f"      TokenRef: {remote.token_ref}")
        if remote.identity_file:
            lines.append(f"      IdentityFile: {_quoted(remote.identity_file)}")
        if remote.known_host_key:
            lines.append(f"      KnownHostKey: {_quoted(remote.known_host_key)}")
    return "\n".join(
        [*lines, "---", f"What {answers.name} may do. Everything that is not listed is refused.", ""]
    )


def _agent(name: str) -> str:
    return f"---\nbottle: {name}\n---\n{_PROMPT}"


def _quoted(text: str) -> str:
    """Write text in YAML's double-quoted form, of which JSON's is a part (YAML 1.2, 1.3)."""
    written = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in written)
