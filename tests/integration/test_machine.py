"""A bottle's machine as its engine knows it: whose it is, what it needs to start, and that it is swept."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.family import Family, is_machine, wait_until
from tests.support.lab import RaisedError
from tests.support.machine_image import busybox_archive
from tests.support.outside import new_marker
from tests.support.watch import Watch

if TYPE_CHECKING:
    from tests.support.lab import Lab, RunningBottle
    from tests.support.terminal import Terminal

pytestmark = pytest.mark.integration

BOTTLE = """\
agent_provider: {{template: command, argv: [/bin/true]}}
limits: {{memory: 512MiB, cpus: 1, open_files: 200}}
env: {{SHOWN_TO_NOBODY: {value}}}
egress: {{routes: [{{host: allowed.test}}]}}
"""

SMALL = """\
agent_provider: {{template: command, argv: [/bin/true], image: {image}}}
limits: {{memory: 512MiB, cpus: 1}}
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


def reach_nothing_without_the_sidecar(lab: Lab, running: RunningBottle) -> None:
    """Kill the sidecar of a bottle that reaches ``allowed.test``; no client of it does afterwards."""
    curl = "curl -s -m 5 $way https://allowed.test/{}"
    ways = f"for way in '--noproxy allowed.test' ''; do {curl}; done; echo end"
    before, after = new_marker("before"), new_marker("after")
    running.sh(ways.format(before))
    assert len(lab.world.reached(before)) == 2, "directly, and by the proxy"
    with Family(lab, running.launcher_pid, running.identity) as family:
        os.kill(family.sidecar(), signal.SIGKILL)
    assert running.sh(ways.format(after)).out == "end\n"
    assert lab.world.reached(after) == []
    with pytest.raises(RaisedError, match=r"sidecar of bottle .* has ended"):
        running.agent("true")


def test_a_kept_machine_is_ours_and_nothing_without_its_sidecar(lab: Lab) -> None:
    value = new_marker("value")
    lab.declare("swept", BOTTLE.format(value=value))
    # Neither an argument of any process nor the engine's own record shows what the bottle's variables hold.
    with Watch(value, lab.user_home / ".local" / "share" / "smolvm") as watch:
        running = lab.launch("swept", env={"SMOL_CLOUD_TOKEN": "leads-to-no-cloud"})
        name = f"bot-bottle-{running.identity}"
        told = running.sh("echo kept > ~/note; nproc; ulimit -n; echo $SHOWN_TO_NOBODY")
        assert told.out.split() == ["1", "200", value], told.err
        assert running.agent("printenv", "SHOWN_TO_NOBODY").out == f"{value}\n"
        reach_nothing_without_the_sidecar(lab, running)
        running.close(exit_code=3)
    assert (watch.found, watch.rounds > 0, watch.files != set()) == (set(), True, True)
    installation = (lab.home / "installation").read_text().strip()
    (found,) = [one for one in ask(lab, _LIST) if one[0] == name]
    assert found[2].pop("bot-bottle.image"), "what it was made from is known"
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


def test_a_resumed_bottle_goes_on_in_an_archive_with_nothing_but_busybox(lab: Lab) -> None:
    """Its home and workspace come with it into the machine of another image, and nothing else does."""
    archive = busybox_archive(lab.user_home / "busybox.tar")
    if archive is None:
        pytest.skip("busybox is not here as a static program to make a small image of")
    lab.declare("small", SMALL.format(image=lab.machine_image))
    with lab.launch("small") as first:
        made = "umask 027; echo kept >~/note; ln -s note ~/link; echo echo ran >run; chmod 750 run"
        assert first.sh(f"{made}; readlink /bin/sh").out != "busybox\n"
        first.close(exit_code=3)
    lab.declare("small", SMALL.format(image=archive))
    source, back = lab.user_home / "small-source", lab.user_home / "small-back"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / ("n" * 120)).write_bytes(b"long")
    (source / "run").write_bytes(b"#!/bin/sh\necho ran as $(id -u)\n")
    (source / "run").chmod(0o750)
    with lab.launch("small", identity=first.identity) as running:
        assert "is another image now" in running.log.read_text()
        kept = running.sh("readlink /bin/sh; readlink ~/link; cat ~/note; stat -c '%U %a' run ~/note; ./run")
        assert kept.out == "busybox\nnote\nkept\nagent 750\nagent 640\nran\n", kept.err
        assert not (running.state_dir / "home.tar").exists()
        running.cp_in(source, "/home/agent/workspace/in")
        told = running.sh("stat -c '%U %a' in/run; in/run; cat in/folder/n*")
        assert told.out == "agent 750\nran as 1000\nlong", told.err
        running.cp_out("/home/agent/workspace/in", back)
    assert (back / "folder" / ("n" * 120)).read_bytes() == b"long"
    assert (back / "run").stat().st_mode & 0o777 == 0o750
    assert [one for one in ask(lab, _LIST) if one[0] == f"bot-bottle-{first.identity}"] == []


LASTING = """\
agent_provider: {{template: command, argv: [/bin/sh]}}
limits: {{memory: {memory}, cpus: 1}}
egress: {{routes: [{{host: allowed.test}}{more}]}}
"""


def join(lab: Lab, identity: str) -> Terminal:
    terminal = lab.terminal("attach", identity)
    terminal.wait_for("Ctrl-P Ctrl-Q leaves it to itself")
    return terminal


def family_of(lab: Lab, identity: str) -> Family:
    return Family(lab, int((lab.home / "state" / identity / "lock").read_text()), identity)


def states_of(pid: int) -> set[str]:
    """Give the states of all of a process's threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks}


def test_a_detached_machine_is_seen_held_still_killed_and_taken_up_with_other_limits(lab: Lab) -> None:
    lab.declare("lasting", LASTING.format(memory="512MiB", more=""))
    started = lab.cli("start", "lasting", "--detach", "--yes")
    assert started.returncode == 0, started.err
    identity = started.out.strip()
    (listed,) = lab.states("lasting")
    assert (listed["status"], listed["detached"], listed["backend"]) == ("running", True, lab.backend)
    board = lab.cli("dashboard", "--once", "--json").json()
    (shown,) = [one for one in board["bottles"] if one["identity"] == identity]
    assert (shown["state"], shown["backend"]) == ("detached", lab.backend)

    beat = new_marker("beat")
    with join(lab, identity) as first, family_of(lab, identity) as family:
        first.enter(
            f"echo kept > file; sync; (while :; do curl -s -m 60 https://allowed.test/{beat}; done)"
            " >/dev/null 2>&1 & echo be''ating; head -1 /proc/meminfo\r"
        )
        first.wait_for("beating")
        small = int(first.wait_for(" kB").split()[-1])
        wait_until(lambda: bool(lab.world.reached(beat)), "its requests arrive")
        (cut,) = lab.cli("panic", identity, "--json").json()
        assert (cut["trouble"], cut["frozen"]) == ("", True)
        arrived = len(lab.world.reached(beat))
        (monitor,) = [pid for pid in family.pids if is_machine(pid)]
        assert states_of(monitor) == {"T"}
        refused = lab.cli("diff", identity)
        assert (refused.returncode, "held still" in refused.err) == (3, True), refused.err
        assert "panic" in lab.cli("info", identity).out
        assert len(lab.world.reached(beat)) == arrived, "something left after the panic"
        assert lab.cli("panic", identity, "--lift").returncode == 0
        wait_until(lambda: len(lab.world.reached(beat)) > arrived, "the agent goes on")
        # Held still once more, and its launcher killed: nothing of it lives on, and what it did is kept.
        assert lab.cli("panic", identity, "--json").json()[0]["frozen"] is True
        os.kill(family.pids[0], signal.SIGKILL)
        family.wait_until_gone()
    assert [one["status"] for one in lab.states("lasting")] == ["preserved"]
    verified = lab.cli("audit", "verify", identity)
    assert verified.returncode == 0, verified.out

    lab.declare("lasting", LASTING.format(memory="768MiB", more=", {host: second.test}"))
    resumed = lab.cli("resume", identity, "--detach", "--yes")
    assert resumed.returncode == 0, resumed.err
    assert "+ second.test" in resumed.err
    assert "limits.memory" in resumed.err
    assert "another image" not in resumed.err
    with join(lab, identity) as second, family_of(lab, identity) as family:
        second.enter(
            "cat file; head -1 /proc/meminfo; curl -s -o /dev/null -w '%{http_code}' https://second.test\r"
        )
        second.wait_for("kept")
        large = int(second.wait_for(" kB").split()[-1])
        assert large > small + 200 * 1024, "the machine has the memory that the manifest says now"
        second.wait_for("200")
        # Without its sidecar it goes on, and reaches nothing.
        lost = new_marker("lost")
        os.kill(family.sidecar(), signal.SIGKILL)
        second.enter(f"curl -s -m 60 https://second.test/{lost} || echo fai''led\r")
        second.wait_for("failed")
        assert lab.world.reached(lost) == []
        second.enter("exit 7\r")
        second.wait_for("exit code 7")
        assert second.exit_code() == 7
        family.wait_until_gone()
    (kept,) = lab.states("lasting")
    assert (kept["status"], kept["exit_code"]) == ("preserved", 7)
    assert lab.cli("cleanup", identity, "--yes").returncode == 0
    assert [one for one in ask(lab, _LIST) if one[0] == f"bot-bottle-{identity}"] == []
