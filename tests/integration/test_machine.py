"""A bottle's machine as its engine knows it: whose it is, what it needs to start, and that it is swept."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.outside import new_marker
from tests.support.watch import Watch

if TYPE_CHECKING:
    from tests.support.lab import Lab

pytestmark = pytest.mark.integration

BOTTLE = """\
agent_provider: {{template: command, argv: [/bin/true]}}
limits: {{memory: 512MiB, cpus: 1, open_files: 200}}
env: {{SHOWN_TO_NOBODY: {value}}}
"""

_LIST = """
import json, smol
here = smol.ConnectOptions(target="local")
print(json.dumps([[m.name, m.state, m.labels, m.resources.cpus, m.resources.memory_mib] for m in
                  smol.Machine.list(here)]))
"""

_START = """
import json, sys, smol
try:
    smol.Machine.connect(sys.argv[1], smol.ConnectOptions(target="local"))
    print(json.dumps("started"))
except smol.SmolError as error:
    print(json.dumps(str(error)))
"""


def ask(lab: Lab, code: str, *args: str) -> Any:
    """Run Python with the engine's SDK as the account that launches."""
    argv = [sys.executable, "-c", code, *args]
    return lab.world.run(argv, account=lab.account, env=lab.env, cwd=lab.project).json()


def test_a_kept_machine_is_ours_starts_with_its_sidecar_only_and_is_swept(lab: Lab) -> None:
    value = new_marker("value")
    lab.declare("swept", BOTTLE.format(value=value))
    # Neither an argument of any process nor the engine's own record shows what the bottle's variables hold.
    with Watch(value, lab.user_home / ".local" / "share" / "smolvm") as watch:
        running = lab.launch("swept", env={"SMOL_CLOUD_TOKEN": "leads-to-no-cloud"})
        name = f"bot-bottle-{running.identity}"
        told = running.sh("echo kept > ~/note; nproc; ulimit -n; echo $SHOWN_TO_NOBODY")
        assert told.out.split() == ["1", "200", value], told.err
        assert running.agent("printenv", "SHOWN_TO_NOBODY").out == f"{value}\n"
        running.close(exit_code=3)
    assert (watch.found, watch.rounds > 0, watch.files != set()) == (set(), True, True)
    installation = (lab.home / "installation").read_text().strip()
    (found,) = [one for one in ask(lab, _LIST) if one[0] == name]
    assert found[1:] == [
        "stopped",
        {
            "bot-bottle.identity": running.identity,
            "bot-bottle.installation": installation,
            "bot-bottle.role": "agent",
        },
        1,
        512,
    ]
    assert "interceptor" in ask(lab, _START, name), "without a sidecar it must not start"
    assert [one[1] for one in ask(lab, _LIST) if one[0] == name] == ["stopped"]
    # A state folder that went another way: nobody will resume this machine.
    shutil.rmtree(running.state_dir)
    swept = lab.cli("cleanup", "--yes")
    assert swept.returncode == 0, swept.err
    assert f"stopped machine {name} of a launch that is gone" in swept.out
    assert [one for one in ask(lab, _LIST) if one[0] == name] == []
