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
from bot_bottle.audit import read_records
from bot_bottle.backend.base import BottleSpec
from bot_bottle.backend.launch import launch_bottle, settle
from bot_bottle.backend.prepare import prepare_plan
from bot_bottle.backend.registry import choose_backend
from bot_bottle.demo.authority import Authority
from bot_bottle.demo.messages_api import ScriptedModel
from bot_bottle.demo.upstreams import ScriptedServer
from bot_bottle.errors import UnavailableError
from bot_bottle.manifest.model import Manifest
from bot_bottle.operator_config import load_operator_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.backend.base import Bottle, BottleBackend, BottlePlan

MODEL_HOST = "api.anthropic.com"
SITE_HOST = "docs.example.org"
ELSEWHERE_HOST = "paste.example.net"

PLACEHOLDER = "placeholder-not-a-token"
FINAL_TEXT = "Hello from the scripted model."
_TOKEN_REF = "BOT_BOTTLE_DEMO_TOKEN"  # noqa: S105 - the name of a variable
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
---
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """All a scene may look at; ``elsewhere`` stands for the rest of the world, and nothing may reach it."""

    plan: BottlePlan
    bottle: Bottle
    token: str
    model: ScriptedServer
    site: ScriptedServer
    elsewhere: ScriptedServer

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
    went_well = True
    with _private_home() as home:
        with _stage(home, backend, place, settings) as stage:
            for number, scene in enumerate(scenes.SCENES, start=1):
                went_well &= printer.scene(number, scene.title, scene.play(stage))
        for number, scene in enumerate(scenes.EPILOGUE, start=len(scenes.SCENES) + 1):
            went_well &= printer.scene(number, scene.title, scene.play(stage))
    if home.exists():
        printer.line(f"{home} could not be removed")
        went_well = False
    seconds = time.monotonic() - started
    outcome = "every scene went as it should" if went_well else "NOT every scene went as it should"
    printer.title(f"{outcome} ({seconds:.1f} s); nothing was left behind")
    return 0 if went_well else 1


@contextlib.contextmanager
def _private_home() -> Iterator[Path]:
    """Give the run a bot-bottle home of its own, so that the operator's is neither read nor written."""
    before = os.environ.get("BOT_BOTTLE_HOME")
    home = Path(tempfile.mkdtemp(prefix="bot-bottle-demo-"))
    os.environ["BOT_BOTTLE_HOME"] = str(home)
    try:
        yield home
    finally:
        if before is None:
            del os.environ["BOT_BOTTLE_HOME"]
        else:
            os.environ["BOT_BOTTLE_HOME"] = before
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _stage(home: Path, backend: BottleBackend, place: str, settings: str) -> Iterator[Stage]:
    authority = Authority("bot-bottle demo")
    token = f"demo-token-{secrets.token_hex(16)}"
    listeners = [(_listener(place),) for _ in range(3)]
    with (
        ScriptedServer(
            "model", ScriptedModel(FINAL_TEXT), authority=authority, listeners=listeners[0]
        ) as model,
        ScriptedServer("site", authority=authority, listeners=listeners[1]) as site,
        ScriptedServer("elsewhere", authority=authority, listeners=listeners[2]) as elsewhere,
    ):
        _declare(home, authority, settings, model, site, elsewhere)
        empty = home / "project"
        empty.mkdir()
        spec = BottleSpec(manifest=Manifest.resolve(empty), agent_name=_AGENT, user_cwd=empty)
        plan = prepare_plan(spec, backend, load_operator_config(), host_env={**os.environ, _TOKEN_REF: token})
        with launch_bottle(plan) as bottle:
            yield Stage(plan=plan, bottle=bottle, token=token, model=model, site=site, elsewhere=elsewhere)
        settle(plan.identity, 0)


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
    home: Path,
    authority: Authority,
    backend_settings: str,
    model: ScriptedServer,
    site: ScriptedServer,
    elsewhere: ScriptedServer,
) -> None:
    """Write the manifest and the config a newcomer would write, with hosts pinned to the scripted servers.

    The forbidden host is pinned as well: were a policy to fail, its request would arrive there and be seen.
    """
    for folder in (paths.bottles_dir(), paths.agents_dir()):
        folder.mkdir(mode=0o700)
    (home / "ca.pem").write_text(authority.pem)
    (paths.bottles_dir() / f"{_AGENT}.md").write_text(_BOTTLE)
    (paths.agents_dir() / f"{_AGENT}.md").write_text(f"---\nbottle: {_AGENT}\n---\n")
    paths.config_file().write_text(
        f'[egress]\nupstream_ca = "{home}/ca.pem"\n[pins]\n'
        f'"{MODEL_HOST}" = "{model.address}"\n'
        f'"{SITE_HOST}" = "{site.address}"\n'
        f'"{ELSEWHERE_HOST}" = "{elsewhere.address}"\n'
        f"{backend_settings}"
    )
    for file in home.rglob("*.*"):
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

    def scene(self, number: int, title: str, outcome: Outcome) -> bool:
        """Print one scene; whether it went as it should."""
        verdict = self._paint("32", "as it should") if outcome.ok else self._paint("1;31", "NOT as it should")
        self.title(f"{number}. {title}")
        for label, text in outcome.told:
            wrapped = textwrap.wrap(text, self._width - 11, break_on_hyphens=False) or [""]
            for index, part in enumerate(wrapped):
                print(f"  {label if index == 0 else '':<8} {part}")
        print(f"  {'went':<8} {verdict}", flush=True)
        return outcome.ok

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a scene went: what to tell, as (label, text), and whether it went as it should."""

    ok: bool
    told: tuple[tuple[str, str], ...]
