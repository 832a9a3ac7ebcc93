"""A machine's clock that jumps under a running bottle; launcher, sidecar, agent and operator live by it."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.audit_reading import verify
from tests.support.clock import DAY, VARIABLE, Clock
from tests.support.family import wait_until
from tests.support.lab import Lab
from tests.support.outside import accounts, new_marker

if TYPE_CHECKING:
    from tests.support.lab import RunningBottle
    from tests.support.outside import World

pytestmark = pytest.mark.integration

#: A host for each look, since a connection that was checked before a jump is not checked again.
HOSTS = tuple(f"{name}.clock.test" for name in ("first", "ahead", "behind", "expired", "early", "right"))
_BOTTLE = """agent_provider: {template: command, argv: [/bin/sh]}
supervise: true
egress:
  routes:
"""
_ASK = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "request_egress", "arguments": {"host": "asked.test", "reason": "to read"}},
    }
)


@pytest.fixture
def one_lab(lab: Lab, world: World) -> Lab:
    """Give an installation of its own; one account is enough, and one backend has its sidecar here."""
    if lab.backend != "bubblewrap" or lab.account.name != accounts()[0].name:
        pytest.skip("the sidecar is the same on every backend; one account's on this machine is set here")
    return Lab(world=world, account=lab.account, backend=lab.backend)


class Agent:
    """What an agent does in its bottle, under the machine's clock like everybody."""

    def __init__(self, bottle: RunningBottle, clock: Clock) -> None:
        self.bottle, self.clock = bottle, clock
        bottle.cp_in(clock.library, "/home/agent/clock.so")
        self.set(0)

    def set(self, seconds: int) -> None:
        """Set the whole machine's clock, so many seconds from the true time."""
        self.clock.set(seconds)
        self.bottle.sh("rm -f clock-file", timeout=60)
        self.bottle.cp_in(self.clock.file, "/home/agent/clock-file")

    def date(self) -> int:
        return int(self.sh("date +%s"))

    def get(self, host: str, path: str = "/") -> tuple[str, dict[str, Any]]:
        """Ask over a connection of its own, the certificate checked; gives the status and a refusal."""
        said = self.sh(f"curl -sS -m 30 -w '\\n%{{http_code}}' https://{host}{path} 2>&1")
        body, _, status = said.strip().rpartition("\n")
        return status, json.loads(body) if "bot_bottle_denied" in body else {}

    def sh(self, script: str) -> str:
        env = f"export LD_PRELOAD=/home/agent/clock.so {VARIABLE}=/home/agent/clock-file"
        return self.bottle.sh(f"{env}; {script}", timeout=90).out.strip()


def _granted(lab: Lab, bottle: RunningBottle, clock: Clock) -> None:
    """Have the agent ask for a host and the operator grant it for an hour."""
    curl = "curl -sS -m 60 -H 'Accept: application/json, text/event-stream'"
    ask = f"{curl} -H 'Content-Type: application/json' -d '{_ASK}' $BOT_BOTTLE_SUPERVISE_URL"
    asking = threading.Thread(target=bottle.sh, args=(ask,), kwargs={"timeout": 90})
    asking.start()
    requests: list[dict[str, Any]] = []

    def come() -> bool:
        requests[:] = lab.cli("requests", bottle.identity, "--json", env=clock.env).json()
        return bool(requests)

    wait_until(come, "a request")
    done = lab.cli("approve", requests[0]["request"], "--yes", "--for", "1h", env=clock.env)
    assert done.returncode == 0, done.err
    asking.join(90)


def test_nothing_opens_or_breaks_for_good_when_the_clock_jumps(one_lab: Lab, world: World) -> None:
    lab, token = one_lab, new_marker("clock")
    clock = Clock(lab.user_home)
    routes = "".join(
        f"    - {{host: {h}, auth: {{scheme: Bearer, token_ref: CLOCK_TOKEN}}}}\n" for h in HOSTS
    )
    lab.declare("clock", _BOTTLE + routes)
    first, ahead, behind, expired, early, right = HOSTS
    with lab.launch("clock", env={**clock.env, "CLOCK_TOKEN": token}) as bottle:
        agent = Agent(bottle, clock)
        true = agent.date()
        assert agent.get(first)[0] == "200"
        _granted(lab, bottle, clock)
        assert agent.get("asked.test")[0] == "200"

        # A day back: what the bottle's CA signed, before and now, is believed.
        agent.set(-DAY)
        assert agent.date() < true - DAY + 3600, "the clock is not moved here, so this proves nothing"
        assert [agent.get(host)[0] for host in (first, behind)] == ["200", "200"]

        # A day ahead: believed as well; the hour of the grant is over.
        agent.set(DAY)
        assert agent.date() > true + DAY - 3600
        assert [agent.get(host)[0] for host in (first, ahead)] == ["200", "200"]
        wait_until(lambda: agent.get("asked.test")[0] == "403", "the end of the grant")

        # Past the end of the upstream's certificate, and before its beginning: said, and nothing is sent.
        for seconds, host, words in ((3 * DAY, expired, "expired"), (-3 * DAY, early, "not yet valid")):
            agent.set(seconds)
            status, refusal = agent.get(host)
            assert (status, refusal["reason"]) == ("502", "upstream_tls"), refusal
            assert words in refusal["message"]
            assert agent.get("asked.test")[0] == "403", "an hour that was over came back"
        agent.set(-10 * DAY)
        assert agent.get(first)[0] == "000", "the agent's own programs believe no certificate of the future"

        # Right again: everything is as it was, and what was over is over.
        agent.set(0)
        assert [agent.get(host)[0] for host in (first, expired, early, right)] == ["200"] * 4
        assert agent.get("asked.test")[0] == "403"
        done = lab.cli("audit", "verify", bottle.identity, env=clock.env)
        assert done.returncode == 0, done.out + done.err
        audit = bottle.audit_path
    times = [json.loads(line)["time"] for line in audit.read_text().splitlines()]
    assert times != sorted(times), "the record tells the clock as it stood"
    assert verify(audit).ended
    asked = [seen for seen in world.records().requests if seen.sni in {*HOSTS, "asked.test"}]
    assert {seen.sni for seen in asked if token.encode() in seen.raw} == set(HOSTS)
    assert not [seen for seen in asked if seen.sni == "asked.test" and token.encode() in seen.raw]
    assert token not in audit.read_text()
