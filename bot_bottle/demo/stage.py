"""Sets the demo's stage: upstreams on this machine, a manifest for one run, a bottle, and the curtain."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.audit_reading import read_records
from bot_bottle.backend.launch import launch_bottle, settle
from bot_bottle.backend.plan import BottleSpec
from bot_bottle.backend.prepare import prepare_plan
from bot_bottle.backend.registry import choose_backend
from bot_bottle.demo.authority import Authority
from bot_bottle.demo.git_upstream import PROJECT, GitUpstream, why_not
from bot_bottle.demo.messages_api import ScriptedModel
from bot_bottle.demo.upstreams import Handler, ScriptedServer, hello
from bot_bottle.errors import UnavailableError
from bot_bottle.manifest.model import Manifest
from bot_bottle.operator_config import load_operator_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bot_bottle.backend.base import Bottle, BottleBackend
    from bot_bottle.backend.plan import BottlePlan

MODEL_HOST = "api.anthropic.com"
SITE_HOST = "docs.example.org"
ELSEWHERE_HOST = "paste.example.net"
GIT_HOST = "git.example.org"
GIT_REMOTE = "project"

PLACEHOLDER = "placeholder-not-a-token"
FINAL_TEXT = "Hello from the scripted model."
_TOKEN_REF = "BOT_BOTTLE_DEMO_TOKEN"  # noqa: S105 - the name of a variable
_GIT_TOKEN_REF = "BOT_BOTTLE_DEMO_GIT_TOKEN"  # noqa: S105 - the name of a variable
_AGENT = "demo"

_BOTTLE = f"""---
agent_provider:
  template: command
  argv: [/bin/sh]
env:
  MODEL_TOKEN: {PLACEHOLDER}
egress:
  routes:
    - host: {MODEL_HOST}
      path_allowlist: [/v1/]
      auth: {{scheme: Bearer, token_ref: {_TOKEN_REF}}}
    - host: {SITE_HOST}
"""

_GIT = f"""git:
  user: {{name: Demo Agent, email: agent@example.org}}
  remotes:
    {GIT_HOST}: {{Name: {GIT_REMOTE}, Upstream: "https://{GIT_HOST}{PROJECT}", TokenRef: {_GIT_TOKEN_REF}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitStage:
    """The upstream of the bottle's git remote, and the server in front of it."""

    upstream: GitUpstream
    server: ScriptedServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """All a scene may look at; ``elsewhere`` stands for the rest of the world, and nothing may reach it.

    Without ``git``, ``why_no_git`` says what this machine lacks for it.
    """

    plan: BottlePlan
    bottle: Bottle
    token: str
    model: ScriptedServer
    site: ScriptedServer
    elsewhere: ScriptedServer
    git: GitStage | None = None
    why_no_git: str = ""

    def audit(self) -> list[dict[str, object]]:
        """Read the audit log as it stands."""
        return list(read_records(self.plan.audit_path))


def play() -> int:
    """Play every scene and the epilogue, print the outcome, leave nothing behind."""
    from bot_bottle.demo import scenes  # noqa: PLC0415 - scenes import this module

    started = time.monotonic()
    backend, why = choose_backend("", os.environ, load_operator_config().backend)
    # Asked before the run has a home of its own, with the operator's config out of sight.
    place, settings = backend.host_address(), backend.demo_settings()
    printer = Printer()
    printer.title(f"bot-bottle demo: a scripted agent in a real bottle ({backend.name}, {why})")
    printer.line(f"boundary: {backend.boundary}; every server is a script on this machine ({place})")
    outcomes: list[Outcome] = []
    with _private_home() as home:
        with _stage(home, backend, place, settings) as stage:
            for number, scene in enumerate(scenes.SCENES, start=1):
                outcomes.append(printer.scene(number, scene.title, _played(scene.play, stage)))
        for number, scene in enumerate(scenes.EPILOGUE, start=len(scenes.SCENES) + 1):
            outcomes.append(printer.scene(number, scene.title, scene.play(stage)))
    went_well = all(outcome.ok for outcome in outcomes)
    if home.exists():
        printer.line(f"{home} could not be removed")
        went_well = False
    seconds = time.monotonic() - started
    played = "every scene that was played" if any(one.skipped for one in outcomes) else "every scene"
    outcome = f"{played} went as it should" if went_well else "NOT every scene went as it should"
    printer.title(f"{outcome} ({seconds:.1f} s); nothing was left behind")
    return 0 if went_well else 1


def _played(scene: Callable[[Stage], Outcome], stage: Stage) -> Outcome:
    """Play a scene; one that comes to no end did not go as it should."""
    try:
        return scene(stage)
    except TimeoutError as error:
        return Outcome(ok=False, told=(("happened", f"came to no end: {error}"),))


@contextlib.contextmanager
def _private_home() -> Iterator[Path]:
    """Give the run a bot-bottle home of its own, so that the operator's is neither read nor written."""
    home = Path(tempfile.mkdtemp(prefix="bot-bottle-demo-"))
    try:
        with paths.home_at(home):
            yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _stage(home: Path, backend: BottleBackend, place: str, settings: str) -> Iterator[Stage]:
    authority = Authority("bot-bottle demo")
    tokens = {ref: f"demo-token-{secrets.token_hex(16)}" for ref in (_TOKEN_REF, _GIT_TOKEN_REF)}
    with contextlib.ExitStack() as stack:

        def server(name: str, handler: Handler = hello) -> ScriptedServer:
            listeners = (_listener(place),)
            return stack.enter_context(
                ScriptedServer(name, handler, authority=authority, listeners=listeners)
            )

        model, site = server("model", ScriptedModel(FINAL_TEXT)), server("site")
        elsewhere = server("elsewhere")
        why_no_git = why_not()
        git = None if why_no_git else _git_stage(home, tokens[_GIT_TOKEN_REF], server)
        pinned = {MODEL_HOST: model, SITE_HOST: site, ELSEWHERE_HOST: elsewhere}
        _declare(home, authority, settings, pinned | ({GIT_HOST: git.server} if git else {}))
        empty = home / "project"
        empty.mkdir()
        spec = BottleSpec(manifest=Manifest.resolve(empty), agent_name=_AGENT, user_cwd=empty)
        plan = prepare_plan(spec, backend, load_operator_config(), host_env={**os.environ, **tokens})
        with launch_bottle(plan) as bottle:
            yield Stage(
                plan=plan,
                bottle=bottle,
                token=tokens[_TOKEN_REF],
                model=model,
                site=site,
                elsewhere=elsewhere,
                git=git,
                why_no_git=why_no_git,
            )
        settle(plan.identity, 0)


def _git_stage(home: Path, token: str, server: Callable[[str, Handler], ScriptedServer]) -> GitStage:
    folder = home / "upstream"
    folder.mkdir(mode=0o700)
    upstream = GitUpstream(folder, token)
    upstream.make()
    return GitStage(upstream=upstream, server=server("git", upstream))


def _listener(place: str) -> socket.socket:
    try:
        return socket.create_server((place, 0), backlog=128)
    except OSError as error:
        raise UnavailableError(
            f"the demo's servers cannot listen on {place}, where the bottle's sidecar would look for this "
            f"machine ({error.strerror}); for an engine on another machine try: "
            "BOT_BOTTLE_BACKEND=bubblewrap bot-bottle demo"
        ) from error


def _declare(
    home: Path, authority: Authority, backend_settings: str, pinned: Mapping[str, ScriptedServer]
) -> None:
    """Write the manifest and the config a newcomer would write, with hosts pinned to the scripted servers.

    The forbidden host is pinned as well: were a policy to fail, its request would arrive there and be seen.
    """
    for folder in (paths.bottles_dir(), paths.agents_dir()):
        folder.mkdir(mode=0o700)
    (home / "ca.pem").write_text(authority.pem)
    bottle = paths.bottles_dir() / f"{_AGENT}.md"
    bottle.write_text(f"{_BOTTLE}{_GIT if GIT_HOST in pinned else ''}---\n")
    agent = paths.agents_dir() / f"{_AGENT}.md"
    agent.write_text(f"---\nbottle: {_AGENT}\n---\n")
    pins = "".join(f'"{host}" = "{server.address}"\n' for host, server in pinned.items())
    paths.config_file().write_text(
        f'[egress]\nupstream_ca = "{home}/ca.pem"\n[pins]\n{pins}{backend_settings}'
    )
    for file in (bottle, agent, home / "ca.pem", paths.config_file()):
        file.chmod(0o600)


class Printer:
    """Prints scenes as they happen: colours on a terminal only, plain lines in a pipe."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._width = min(shutil.get_terminal_size((110, 24)).columns, 120)

    def title(self, text: str) -> None:
        """Print a line that stands out."""
        print(f"\n{self._paint('1', text)}", flush=True)

    def line(self, text: str) -> None:
        """Print one plain line."""
        print(text, flush=True)

    def scene(self, number: int, title: str, outcome: Outcome) -> Outcome:
        """Print one scene; gives its outcome."""
        verdict = self._paint("32", "as it should") if outcome.ok else self._paint("1;31", "NOT as it should")
        if outcome.skipped:
            verdict = self._paint("33", f"skipped: {outcome.skipped}")
        self.title(f"{number}. {title}")
        for label, text in outcome.told:
            wrapped = textwrap.wrap(text, self._width - 11, break_on_hyphens=False) or [""]
            for index, part in enumerate(wrapped):
                print(f"  {label if index == 0 else '':<8} {part}")
        print(f"  {'went':<8} {verdict}", flush=True)
        return outcome

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a scene went: what to tell, as (label, text), and whether it went as it should.

    ``skipped`` is why it was not played.
    """

    ok: bool
    skipped: str = ""
    told: tuple[tuple[str, str], ...]
