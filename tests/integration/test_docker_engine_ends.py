"""An engine that is killed, stopped or out of room under a running bottle, and what follows."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.conftest import cannot
from tests.support.engine import Engine, NoEngineError, engine_api
from tests.support.family import wait_until
from tests.support.lab import Lab
from tests.support.outside import accounts, new_marker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

#: A first session leaves a note, asks for a host that nobody allowed and waits; the next one reads the note.
FIRST = "test -e ~/note && exec cat ~/note; echo kept > ~/note; curl -sS https://{host}; sleep 600"
ROUTES = "egress: {routes: [{host: allowed.test}]}"


@pytest.fixture(scope="module")
def engine(world: World) -> Iterator[Engine]:
    """Run an engine that nobody else has work on."""
    try:
        made = Engine(world)
    except NoEngineError as error:
        cannot(f"no container engine of the tests' own can be run here: {error}", "docker")
    yield made
    made.close()


@pytest.fixture(scope="module")
def lab(world: World, engine: Engine) -> Lab:
    made = Lab(world=world, account=accounts()[-1], backend="docker", engine_host=engine.url)
    declare(made, "built", "true")
    built = made.cli("build", "built", timeout=360)  # or the first test would wait for this and for its agent
    assert built.returncode == 0, built.err
    return made


def declare(lab: Lab, name: str, script: str) -> None:
    argv = json.dumps(["/bin/sh", "-c", script])
    lab.declare(name, f"agent_provider: {{template: command, argv: {argv}}}\n{ROUTES}\n")


def left(lab: Lab) -> list[str]:
    with engine_api(lab.engine_host) as api:
        found = api.containers(all=True, filters={"label": "bot-bottle.identity"})
    return [str(one["Names"]) for one in found]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_the_session_ends_and_goes_on_once_the_engine_is_back(lab: Lab, engine: Engine, number: int) -> None:
    name = f"lost-{'killed' if number == signal.SIGKILL else 'stopped'}"
    host = f"{new_marker('lost')}.evil.test"
    declare(lab, name, FIRST.format(host=host))
    log = lab.user_home / f"{name}.log"
    log.write_bytes(b"")
    pid = lab.spawn("start", name, "--yes", "--headless", log=log)
    wait_until(lambda: b"host_not_allowed" in log.read_bytes(), "the agent worked")
    engine.stop(number)
    try:
        ended = lab.world.call("wait", pid=pid, timeout=120)
        said = log.read_text()
        assert ended == 4, said
        (state,) = lab.states(name)
        identity = str(state["identity"])
        assert state["status"] == "preserved"
        assert f"bot-bottle resume {identity}" in said
        assert "Traceback" not in said
        refused = lab.cli("resume", identity, "--yes", "--headless")
        assert refused.returncode == 3
        assert engine.url in refused.err
    finally:
        engine.start()
    cleaned = lab.cli("cleanup", "--yes", timeout=120)
    assert cleaned.returncode == 0, cleaned.err
    # The engine removes by itself what ended while it was away, and lists it until that is done.
    wait_until(lambda: left(lab) == [], "nothing is left")
    verified = lab.cli("audit", "verify", identity)
    assert verified.returncode == 0, verified.out + verified.err
    assert host in lab.cli("audit", identity).out
    resumed = lab.cli("resume", identity, "--yes", "--headless", timeout=120)
    assert (resumed.returncode, resumed.out) == (0, "kept\n"), resumed.err
    assert lab.states(name) == []
    assert "nothing to remove" in lab.cli("cleanup", "--yes").out


@pytest.fixture
def small_disk(engine: Engine, world: World) -> Iterator[Path]:
    """Give the engine's volumes a disk of their own with room for little.

    Mounted under the running engine: one that starts may bind its folder over itself, which hides what lies
    below (``setupDaemonRootPropagation``), and unbinds it again unless it was killed.
    """
    place = engine.data_root / "volumes"
    mounted = world.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=0701", "tmpfs", str(place)])
    assert mounted.returncode == 0, mounted.err
    room = world.run(["stat", "-f", "-c", "%T %b %S", str(place)]).out.split()
    assert (room[0], int(room[1]) * int(room[2])) == ("tmpfs", 3 << 20)
    yield place
    wait_until(lambda: world.run(["umount", str(place)]).returncode == 0, "nothing uses that disk any more")


def test_a_disk_that_the_agent_filled_closes_its_way_out(lab: Lab, world: World, small_disk: Path) -> None:
    """What cannot be put on record is not done, and the end is as orderly as ever."""
    declare(lab, "filler", "true")
    marker = new_marker("filler")
    with lab.launch("filler") as bottle:
        assert bottle.sh("curl -sS https://allowed.test/before").returncode == 0
        assert bottle.sh("dd if=/dev/zero of=big bs=4k; cat big > more").returncode != 0
        ask = f"curl -sS -o /dev/null -w '%{{http_code}} ' https://allowed.test/{marker}-$n"
        tried = bottle.sh(f"for n in $(seq 60); do {ask}; done", timeout=110)
        assert tried.out.split()[-1] != "200", tried.out
        arrived = len(set(world.records().with_marker(marker)))
        assert arrived == tried.out.split().count("200")
    assert left(lab) == []
    assert lab.cli("cleanup", "--yes").returncode == 0
