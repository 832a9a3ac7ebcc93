"""The bottle under test: a home, a manifest and a marked token for one run."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bot_bottle import paths
from bot_bottle.audit_reading import read_records
from bot_bottle.backend.launch import launch_bottle, settle
from bot_bottle.backend.plan import BottleSpec
from bot_bottle.backend.prepare import prepare_plan
from bot_bottle.manifest.model import Manifest
from bot_bottle.operator_config import load_operator_config
from bot_bottle.verify.outside import ECHO_HOSTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bot_bottle.backend.base import Bottle, BottleBackend
    from bot_bottle.backend.plan import BottlePlan
    from bot_bottle.verify.outside import Outside

PLACEHOLDER = "placeholder-only"
_TOKEN_REF = "BOT_BOTTLE_VERIFY_TOKEN"  # noqa: S105 - the name of a variable
_AGENT = "verify"

#: Hosts that are asked for by name. Only the last is in no route.
ALLOWED, API, PATHS, READ, DEEP, FORBIDDEN = (
    "allowed.test", "api.test", "paths.test", "read.test", "deep.wild.test", "evil.test",
)  # fmt: skip
TOKEN_HOSTS = frozenset({API, *ECHO_HOSTS})
_HOSTS = (ALLOWED, API, *ECHO_HOSTS, PATHS, READ, DEEP, FORBIDDEN)

_BOTTLE = f"""---
agent_provider:
  template: command
  argv: [/bin/sh]
env:
  API_TOKEN: {PLACEHOLDER}
  DB_PASSWORD: GUARDED
guard: [DB_PASSWORD]
egress:
  routes:
    - host: {ALLOWED}
    - host: {API}
      auth: {{scheme: Bearer, token_ref: {_TOKEN_REF}, placeholder: {PLACEHOLDER}}}
    - host: echo.test
      auth: {{scheme: Bearer, token_ref: {_TOKEN_REF}}}
    - host: query.test
      auth: {{scheme: query, token_ref: {_TOKEN_REF}, name: key}}
    - host: {PATHS}
      path_allowlist: [/public/]
    - host: {READ}
      methods: [GET, HEAD]
    - host: "*.wild.test"
---
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """All that an attack and its judge may use.

    ``token`` is real to this run, ``guarded`` must not leave, ``scratch`` is a private folder.
    """

    backend: BottleBackend
    plan: BottlePlan
    bottle: Bottle
    outside: Outside
    scratch: Path
    token: str
    guarded: str

    def audit(self) -> list[dict[str, Any]]:
        """Read the audit log as it stands."""
        return list(read_records(self.plan.audit_path))

    def refusals(self) -> int:
        """Count the refusals on record so far."""
        return sum(line.get("decision") == "deny" for line in self.audit())


@contextlib.contextmanager
def bottle_under_test(
    scratch: Path, backend: BottleBackend, outside: Outside, settings: str
) -> Iterator[Stage]:
    """Declare and launch the bottle, in a home of bot-bottle's own below the private folder ``scratch``.

    ``settings`` are lines of config.toml of the backend's own. Raises as a launch does.
    """
    token, guarded = f"marked-{secrets.token_hex(16)}", f"Kq7-{secrets.token_hex(10)}-zR"
    home, project = scratch / "home", scratch / "project"
    home.mkdir(mode=0o700)
    project.mkdir()
    with paths.home_at(home):
        _declare(home, outside, settings, guarded)
        spec = BottleSpec(manifest=Manifest.resolve(project), agent_name=_AGENT, user_cwd=project)
        host_env = {**os.environ, _TOKEN_REF: token}
        plan = prepare_plan(spec, backend, load_operator_config(), host_env=host_env)
        with launch_bottle(plan, backend) as bottle:
            yield Stage(
                backend=backend,
                plan=plan,
                bottle=bottle,
                outside=outside,
                scratch=scratch,
                token=token,
                guarded=guarded,
            )
        settle(plan.identity, 0, backend=backend)


def _declare(home: Path, outside: Outside, settings: str, guarded: str) -> None:
    for folder in (paths.bottles_dir(), paths.agents_dir()):
        folder.mkdir(mode=0o700)
    (home / "ca.pem").write_text(outside.authority.pem)
    (paths.bottles_dir() / f"{_AGENT}.md").write_text(_BOTTLE.replace("GUARDED", guarded))
    (paths.agents_dir() / f"{_AGENT}.md").write_text(f"---\nbottle: {_AGENT}\n---\n")
    # The forbidden host is led here as well: were a policy to fail, its request would arrive and be seen.
    paths.config_file().write_text(
        f'[egress]\nupstream_ca = "{home}/ca.pem"\n{outside.pins(_HOSTS)}{settings}'
    )
    for file in home.rglob("*.*"):
        file.chmod(0o600)
