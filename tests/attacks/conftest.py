"""One bottle an account and backend, shared by all attacks: routes worth abusing, and a marked credential."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.lab import Lab, RunningBottle

#: The real credential. It exists for one test run, so every place that shows its bytes is a leak.
TOKEN = f"marked-{secrets.token_hex(16)}"
TOKEN_REF = "ATTACK_SUITE_TOKEN"
#: A value that the bottle works with and that must not leave it.
GUARDED = f"Kq7-{secrets.token_hex(10)}-zR"

FRONTMATTER = f"""\
agent_provider:
  template: command
  argv: [/bin/sh]
env:
  API_TOKEN: placeholder-only
  DB_PASSWORD: {GUARDED}
guard: [DB_PASSWORD]
egress:
  routes:
    - host: allowed.test
    - host: api.test
      auth: {{scheme: Bearer, token_ref: {TOKEN_REF}, placeholder: placeholder-only}}
    - host: echo.test
      auth: {{scheme: Bearer, token_ref: {TOKEN_REF}}}
    - host: query.test
      auth: {{scheme: query, token_ref: {TOKEN_REF}, name: key}}
      strip_cookies: true
    - host: paths.test
      path_allowlist: [/public/]
    - host: read.test
      methods: [GET, HEAD]
    - host: streams.test
      http2: true
      auth: {{scheme: Bearer, token_ref: {TOKEN_REF}}}
    - host: "*.wild.test"
    - host: meta.test
      pipelock:
        ssrf_ip_allowlist: [169.254.169.254/32, 100.100.100.200/32, "fd00:ec2::254/128"]
"""


@pytest.fixture(scope="session")
def token() -> str:
    """Give the real credential."""
    return TOKEN


@pytest.fixture(scope="session")
def lab(lab: Lab) -> Lab:
    """Declare the bottle and agent ``attack`` in the installation that all tests share."""
    lab.declare("attack", FRONTMATTER)
    return lab


@pytest.fixture(scope="session")
def hosts_variables(lab: Lab) -> dict[str, str]:
    """Give what stands in the launcher's environment and must not come in."""
    return {
        "SSH_AUTH_SOCK": "/tmp/agent.sock",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/bus",
        "DOCKER_HOST": lab.engine_host or "unix:///run/docker.sock",
        "GPG_AGENT_INFO": "/x",
        "XAUTHORITY": "/x",
        "AWS_SECRET_ACCESS_KEY": "abcdef",
        "LD_PRELOAD_CANARY": "1",
    }


@pytest.fixture(scope="session")
def bottle(lab: Lab, hosts_variables: dict[str, str]) -> Iterator[RunningBottle]:
    """Launch the bottle that attacks run in."""
    with lab.launch("attack", env={TOKEN_REF: TOKEN, **hosts_variables}) as running:
        yield running


@pytest.fixture
def fresh() -> Iterator[list[RunningBottle]]:
    """Give a list for bottles of a test's own; those still up at its end are closed."""
    running: list[RunningBottle] = []
    yield running
    for one in running:
        one.close()
