"""The operator's proxy: the same lines of config.toml lead every backend's sidecar through it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from bot_bottle.egress.hosts import is_ip_literal, parse_authority
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.lab import Lab
    from tests.support.outside import World

pytestmark = pytest.mark.integration

PASSWORD = "proxy-password-7c2e91"
PROXY = "203.0.113.8"


@pytest.fixture
def behind(lab: Lab) -> Iterator[Lab]:
    """Give the installation of an operator whose network has a proxy."""
    config = lab.home / "config.toml"
    before = config.read_text()
    keys = f'proxy = "http://{PROXY}:3128"\nproxy_user = "me"\nproxy_password_ref = "PROXY_PASSWORD"\n'
    lab.write("config.toml", before.replace("[egress]\n", f"[egress]\n{keys}"))
    lab.declare(
        "behind",
        "agent_provider: {template: command, argv: [/bin/true]}\negress: {routes: [{host: allowed.test}]}\n",
    )
    yield lab
    lab.write("config.toml", before)


def test_a_sidecar_goes_out_by_the_proxy_alone(behind: Lab, world: World) -> None:
    marker = new_marker("behind")
    before = len(world.records().requests)
    shown = behind.cli("start", "behind", "--dry-run", env={"PROXY_PASSWORD": PASSWORD})
    assert f"http://{PROXY}:3128 (config.toml), as me, with the password in PROXY_PASSWORD" in shown.out
    with behind.launch("behind", env={"PROXY_PASSWORD": PASSWORD}) as running:
        assert running.sh(f"curl -sS -m 20 https://allowed.test/{marker}").json()["host"] == "allowed.test"
        records = running.audit_path.read_text() + running.log.read_text()
        files = [path for path in behind.home.rglob("*") if path.is_file() and not path.is_symlink()]
        assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
        inside = running.sh("env; cat /proc/[0-9]*/cmdline")
    assert PASSWORD not in shown.out + shown.err + records + inside.out
    requests = world.records().requests[before:]
    (asked,) = [seen for seen in requests if seen.method == "CONNECT" and seen.local[0] == PROXY]
    target = parse_authority(asked.target)
    assert is_ip_literal(target.host)  # what was checked, not the name
    pair = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert asked.values("proxy-authorization") == [f"Basic {pair}"]
    (seen,) = [seen for seen in requests if marker in seen.target]
    assert (seen.tls, seen.sni, seen.local[0]) == (True, "allowed.test", target.host)


def test_without_its_password_nothing_starts(behind: Lab) -> None:
    refused = behind.cli("start", "behind", "--yes", "--headless", "--prompt", "x")
    assert refused.returncode == 2
    assert "PROXY_PASSWORD" in refused.err
