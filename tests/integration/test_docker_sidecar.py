"""A sidecar in a container on a real engine: its doors at the agent's, its secrets, its log, its end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from bot_bottle.audit_reading import read_records, verify
from bot_bottle.backend.docker.engine import Engine, connect
from bot_bottle.backend.docker.labels import label_filter, make_labels
from bot_bottle.backend.docker.progress import Progress
from bot_bottle.backend.docker.removal import remove_container
from bot_bottle.backend.docker.salvage import salvage
from bot_bottle.backend.docker.sidecar import ContainerSidecar
from bot_bottle.backend.docker.sidecar_image import ensure_sidecar_image
from bot_bottle.backend.docker.sidecar_options import SidecarNames
from bot_bottle.backend.docker.streams import Multiplexed
from bot_bottle.errors import LaunchError
from bot_bottle.operator_config import DockerConfig
from bot_bottle.secret import Secret
from bot_bottle.sidecar import handover
from bot_bottle.sidecar.config import SidecarConfig
from tests.integration.egress_lab import SECONDS, TOKEN, route
from tests.support.engine import BASE_IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bot_bottle.egress.routes import EgressRoute
    from tests.support.outside import World

pytestmark = pytest.mark.integration

REPO = Path(__file__).parents[2]
IDENTITY = "lab-00001"
NAMES = SidecarNames(identity=IDENTITY)


@pytest.fixture(scope="module")
def engine(engine_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Reach the tests' engine as an installation of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOT_BOTTLE_HOME", str(tmp_path_factory.mktemp("home")))
        with connect({"DOCKER_HOST": engine_host, "HOME": "/nonexistent"}) as reached:
            yield reached


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """Have the sidecar's image."""
    return ensure_sidecar_image(engine, DockerConfig(sidecar_base_image=BASE_IMAGE), Progress(None)).id


class Agent:
    """A container without a network, as an agent's is."""

    def __init__(self, engine: Engine) -> None:
        self.api = engine.api
        host_config = self.api.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            dns=["127.0.0.1"],
            sysctls={"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv6.conf.lo.disable_ipv6": "0"},
        )
        self.id: str = self.api.create_container(
            BASE_IMAGE, ["sleep", "infinity"], user="1000:1000", host_config=host_config
        )["Id"]
        self.api.start(self.id)

    def run(self, *argv: str) -> tuple[int, str]:
        """Run a program; gives its exit code and what it printed."""
        made = self.api.exec_create(self.id, list(argv))
        output = self.api.exec_start(made["Id"])
        return int(self.api.exec_inspect(made["Id"])["ExitCode"]), output.decode("utf-8", "replace")

    def python(self, code: str, *args: str) -> str:
        """Run a Python program that must end well; gives what it printed."""
        status, output = self.run("python3", "-c", code, *args)
        assert status == 0, output
        return output

    def curl(self, *args: str) -> tuple[int, str]:
        """Fetch without looking at certificates; gives curl's exit code and the status line's number."""
        return self.run("curl", "-sk", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", *args)

    def deny(self, count: int) -> None:
        """Make ``count`` requests that are refused, over one connection."""
        self.python(_DENIED, str(count))


_DENIED = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 9099, timeout=20)
for number in range(int(sys.argv[1])):
    connection.request("GET", f"http://refused.test/{number}")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 403, answer.status
"""

_ASK = """
import socket, struct, sys
query = struct.pack("!6H", 7, 256, 1, 0, 0, 0) + b"\\1a\\4test\\0" + struct.pack("!2H", 1, 1)
kind = socket.SOCK_STREAM if sys.argv[2] == "tcp" else socket.SOCK_DGRAM
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, kind)
sock.settimeout(20)
sock.connect((sys.argv[1], 53))
sock.send(struct.pack("!H", len(query)) + query if sys.argv[2] == "tcp" else query)
print(socket.inet_ntoa(sock.recv(512)[-4:]))
"""


@pytest.fixture
def agent(engine: Engine) -> Iterator[Agent]:
    made = Agent(engine)
    yield made
    remove_container(engine.api, made.id)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "lab.jsonl"


def settings(log: Path, routes: list[EgressRoute] | None = None, ca_pem: str = "") -> SidecarConfig:
    return SidecarConfig(
        identity=IDENTITY,
        routes=tuple(routes or ()),
        audit_path=str(log),
        secrets={"LAB_TOKEN": Secret(TOKEN)},
        upstream_ca_pem=ca_pem,
    )


Start = "Callable[..., ContainerSidecar]"


@pytest.fixture
def start(engine: Engine, image: str, log: Path, agent: Agent) -> Iterator[Callable[..., ContainerSidecar]]:
    """Start a sidecar with its doors in ``agent``'s network; it is closed and must leave nothing."""
    started: list[ContainerSidecar] = []

    def begin(config: SidecarConfig | None = None, **options: Any) -> ContainerSidecar:
        sidecar = ContainerSidecar.start(engine, image=image, config=config or settings(log), **options)
        started.append(sidecar)
        sidecar.begin_doors(agent.id)
        sidecar.await_doors()
        return sidecar

    yield begin
    for sidecar in started:
        sidecar.close()
    assert left(engine) == []


def left(engine: Engine) -> list[str]:
    """Name what there is of this identity on the engine."""
    containers = engine.api.containers(all=True, filters=label_filter(identity=IDENTITY))
    volumes = engine.api.volumes(filters=label_filter(identity=IDENTITY))["Volumes"] or []
    return [*(one["Names"][0] for one in containers), *(one["Name"] for one in volumes)]


def await_gone(engine: Engine, name: str) -> None:
    """Wait until a container is removed."""
    for container in engine.api.containers(all=True, filters={"name": f"^/{name}$"}):
        engine.api.wait(container["Id"], timeout=int(SECONDS), condition="removed")


def test_the_doors_open_in_a_container_without_a_network(
    start: Callable[..., ContainerSidecar], agent: Agent, log: Path
) -> None:
    sidecar = start()
    assert "BEGIN CERTIFICATE" in sidecar.ca_pem
    assert sidecar.alive()
    for address in ("127.0.0.1", "[::1]"):
        assert agent.curl("-x", f"http://{address}:9099", "http://a.test/") == (0, "403")
        assert agent.curl("-g", f"http://{address}/") == (0, "403")
        assert agent.curl("--connect-to", f"a.test:443:{address}:443", "https://a.test/") == (0, "403")
    for address in ("127.0.0.1", "::1"):
        for kind in ("udp", "tcp"):
            assert agent.python(_ASK, address, kind).strip() == "127.0.0.1"
    assert agent.run("getent", "hosts", "any.test")[1].split() == ["::1", "any.test"]
    _, links = agent.run("cat", "/proc/net/dev")
    assert [line.split(":")[0].strip() for line in links.splitlines()[2:]] == ["lo"]
    sidecar.sync()
    assert sum(record["event"] == "request" for record in read_records(log)) == 6
    assert not verify(log).ended
    sidecar.close()
    sidecar.close()
    assert verify(log).ended
    assert not sidecar.alive()
    with pytest.raises(LaunchError, match="closed"):
        sidecar.sync()


def test_it_is_hardened(start: Callable[..., ContainerSidecar], engine: Engine) -> None:
    start()
    found = engine.api.inspect_container(NAMES.sidecar)
    pid = found["State"]["Pid"]
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {"65532"}
    assert {status[name].strip("0").strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {""}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["VmRSS"].split()[0]) <= 60 * 1024
    # Not dumpable: what belongs to the process belongs to root in /proc (proc(5)).
    assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert limits.partition("Max core file size")[2].split()[:2] == ["0", "0"]
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["LogConfig"]["Type"] == "none"
    assert not host["Binds"]
    assert host["AutoRemove"]
    assert {mount["Type"] for mount in found["Mounts"]} == {"volume"}


def test_a_request_goes_out_with_its_credential_which_is_nowhere_else(
    start: Callable[..., ContainerSidecar], engine: Engine, agent: Agent, world: World, log: Path
) -> None:
    """Looked for byte by byte: in all the engine keeps and says, in every process, during and after."""
    assert engine.endpoint.socket_path
    folder = Path(engine.endpoint.socket_path).parent
    sidecar = start(settings(log, [route("api.example.org", auth=True)], world.ca_file.read_text()))
    assert agent.curl("-x", "http://127.0.0.1:9099", "https://api.example.org/v1") == (0, "200")
    (seen,) = [seen for seen in world.records().requests if seen.host == "api.example.org"]
    assert seen.values("authorization") == [f"Bearer {TOKEN}"]
    assert found_in_engine(engine, folder) == []
    assert found_in_processes() == []
    sidecar.close()
    assert found_in_engine(engine, folder) == []
    assert TOKEN not in log.read_text()
    assert '"injected":"LAB_TOKEN"' in log.read_text()


def found_in_engine(engine: Engine, folder: Path) -> list[str]:
    """Name the places on the engine where the token stands."""
    api = engine.api
    said = [json.dumps(api.inspect_container(one["Id"])) for one in api.containers(all=True)]
    for one in api.images(all=True):
        said += [json.dumps(api.inspect_image(one["Id"])), json.dumps(api.history(one["Id"]))]
    said += [json.dumps(api.volumes()), json.dumps(api.networks()), json.dumps(api.info())]
    files = subprocess.run(
        ["grep", "-rlaF", "--devices=skip", TOKEN, str(folder)], capture_output=True, text=True, check=False
    )
    assert files.returncode == 1 or files.stdout, files.stderr
    return [text[:100] for text in said if TOKEN in text] + files.stdout.split()


def found_in_processes() -> list[str]:
    """Name the processes of this machine that show the token in their arguments or environment."""
    places = []
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                if TOKEN.encode() in (folder / name).read_bytes():
                    places.append(f"{folder}/{name}")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return places


def test_it_dies_loudly_and_nothing_passes_any_more(
    start: Callable[..., ContainerSidecar],
    engine: Engine,
    agent: Agent,
    log: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said: list[str] = []
    heard = threading.Event()

    def on_death(sentence: str) -> None:
        said.append(sentence)
        heard.set()

    sidecar = start(on_death=on_death)
    agent.deny(10)
    engine.api.kill(NAMES.sidecar, "KILL")
    assert heard.wait(SECONDS)
    assert said == ["the sidecar failed: it ended"]
    assert not sidecar.alive()
    assert agent.curl("-x", "http://127.0.0.1:9099", "http://a.test/")[0] == 7  # connection refused
    with pytest.raises(LaunchError, match="not running"):
        sidecar.sync()
    sidecar.close()
    assert (verify(log).ok, verify(log).ended, verify(log).records) == (True, False, 11)
    assert capsys.readouterr().err == ""


def test_a_second_session_goes_on_with_the_first_ones_chain(
    start: Callable[..., ContainerSidecar], log: Path, engine: Engine, image: str
) -> None:
    start().close()
    second = ContainerSidecar.start(engine, image=image, config=settings(log))
    assert second.ca_pem
    second.close()
    assert [record["event"] for record in read_records(log)] == ["start", "end"] * 2
    assert (verify(log).ok, verify(log).ended) == (True, True)


_COME = f"""
import socket
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    sock.connect("{handover.PLACE}")
except OSError as error:
    print(type(error).__name__)
else:
    print("connected")
"""


def test_the_hand_over_takes_one_comer_and_the_agent_is_never_one(
    start: Callable[..., ContainerSidecar], engine: Engine, agent: Agent, image: str
) -> None:
    start()
    assert agent.python(_COME).strip() == "FileNotFoundError"
    assert engine.api.inspect_container(agent.id)["Mounts"] == []
    again = engine.api.create_container(
        image,
        entrypoint=["python3", "-c", _COME],
        command=[],
        host_config=engine.api.create_host_config(
            volumes_from=[NAMES.sidecar], network_mode=f"container:{agent.id}"
        ),
    )
    wanted = dict.fromkeys(("stdout", "stderr", "stream"), 1)
    with Multiplexed(engine.api.attach_socket(again["Id"], wanted)) as streams:
        engine.api.start(again)
        said = b"".join(data for _stream, data in streams)
    remove_container(engine.api, again["Id"])
    assert said.decode().strip() == "FileNotFoundError"
    held = agent.run("python3", "-c", "import socket; socket.socket().bind(('127.0.0.1', 9099))")
    assert "Address already in use" in held[1]


class Launcher:
    """A launcher in a process of its own, to be stopped and killed."""

    _SCRIPT = """
import os, signal, sys
from bot_bottle.backend.docker.engine import connect
from bot_bottle.backend.docker.sidecar import ContainerSidecar
from bot_bottle.sidecar.config import SidecarConfig
image, agent = sys.argv[1:]
config = SidecarConfig.from_wire(sys.stdin.buffer.read())
with connect() as engine, ContainerSidecar.start(engine, image=image, config=config) as sidecar:
    print("begun", flush=True)
    sidecar.begin_doors(agent)
    sidecar.await_doors()
    print("open", flush=True)
    signal.pause()
"""

    def __init__(self, engine: Engine, image: str, agent: Agent, config: SidecarConfig) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self._SCRIPT, image, agent.id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=REPO,
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "DOCKER_HOST": engine.endpoint.url,
                "BOT_BOTTLE_HOME": os.environ["BOT_BOTTLE_HOME"],
            },
        )
        assert self.process.stdin is not None
        self.process.stdin.write(config.to_wire())
        self.process.stdin.close()

    def await_word(self, word: str) -> None:
        assert self.process.stdout is not None
        while True:
            assert select.select([self.process.stdout], [], [], 3 * SECONDS)[0], f"'{word}' did not come"
            line = self.process.stdout.readline().decode().strip()
            if line == word:
                return
            assert line, self.process.stderr and self.process.stderr.read().decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


def test_a_launcher_that_stands_still_stalls_nothing_and_its_death_ends_everything(
    engine: Engine, image: str, agent: Agent, log: Path
) -> None:
    """SIGSTOP, thousands of decisions, then SIGKILL: all of them are on record, and brought home."""
    requests = 12_000
    with Launcher(engine, image, agent, settings(log)) as launcher:
        launcher.await_word("open")
        agent.deny(10)
        launcher.process.send_signal(signal.SIGSTOP)
        agent.deny(requests)
        pid = engine.api.inspect_container(NAMES.sidecar)["State"]["Pid"]
        status = Path(f"/proc/{pid}/status").read_text()
        assert int(status.partition("VmRSS:")[2].split()[0]) <= 80 * 1024
        launcher.process.kill()
        launcher.process.wait()
    for name in (NAMES.sidecar, NAMES.doorkeeper):
        await_gone(engine, name)
    assert agent.curl("-x", "http://127.0.0.1:9099", "http://a.test/")[0] == 7  # connection refused
    assert left(engine) == [NAMES.audit]
    before = log.stat().st_size
    assert salvage(engine.api, IDENTITY, log)
    verdict = verify(log)
    assert (verdict.ok, verdict.ended, verdict.records) == (True, True, requests + 12)
    assert log.stat().st_size > before, "the launcher had everything, so nothing was proven"
    assert left(engine) == []
    assert not salvage(engine.api, IDENTITY, log)


def test_the_next_launch_brings_the_rest_home_first(
    engine: Engine, image: str, agent: Agent, log: Path, start: Callable[..., ContainerSidecar]
) -> None:
    with Launcher(engine, image, agent, settings(log)) as launcher:
        launcher.await_word("open")
        launcher.process.send_signal(signal.SIGSTOP)
        agent.deny(100)
        launcher.process.kill()
        launcher.process.wait()
        start().close()
    verdict = verify(log)
    assert (verdict.ok, verdict.ended, verdict.records) == (True, True, 104)


def test_ctrl_c_while_it_comes_up_leaves_nothing(engine: Engine, image: str, agent: Agent, log: Path) -> None:
    with Launcher(engine, image, agent, settings(log)) as launcher:
        launcher.await_word("begun")
        launcher.process.send_signal(signal.SIGINT)
        launcher.process.wait(3 * SECONDS)
        assert launcher.process.stderr is not None
        assert b"KeyboardInterrupt" in launcher.process.stderr.read()
    assert left(engine) == []


@pytest.mark.parametrize(
    ("chosen", "why"),
    [("bot-bottle-none:1", "No such image"), (BASE_IMAGE, "No module named 'bot_bottle'")],
    ids=["no image", "no sidecar in it"],
)
def test_an_image_that_will_not_do_is_told_and_leaves_nothing(
    engine: Engine, log: Path, chosen: str, why: str
) -> None:
    with (
        ContainerSidecar.start(engine, image=chosen, config=settings(log)) as sidecar,
        pytest.raises(LaunchError, match=why),
    ):
        _ = sidecar.ca_pem
    assert left(engine) == []


def test_an_agent_that_is_not_there_is_told(engine: Engine, image: str, log: Path) -> None:
    with ContainerSidecar.start(engine, image=image, config=settings(log)) as sidecar:
        sidecar.begin_doors("bot-bottle-none")
        with pytest.raises(LaunchError, match=r"could not be opened in the bottle: .*No such container"):
            sidecar.await_doors()
    assert left(engine) == []


def test_a_port_that_is_taken_in_the_bottle_is_told(
    engine: Engine, image: str, log: Path, agent: Agent
) -> None:
    made = engine.api.exec_create(
        agent.id,
        ["python3", "-c", "import socket; s = socket.create_server(('127.0.0.1', 443)); input()"],
        stdin=True,
    )
    holder = Multiplexed(engine.api.exec_start(made["Id"], socket=True))
    agent.python(
        "import socket, time\nwhile socket.socket().connect_ex(('127.0.0.1', 443)): time.sleep(0.01)"
    )
    with ContainerSidecar.start(engine, image=image, config=settings(log)) as sidecar:
        sidecar.begin_doors(agent.id)
        with pytest.raises(LaunchError, match="port 443: Address already in use"):
            sidecar.await_doors()
    holder.close()
    assert left(engine) == []


def test_a_volume_of_somebody_else_is_left_alone(
    engine: Engine, image: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.api.create_volume(NAMES.audit)
    with (
        ContainerSidecar.start(engine, image=image, config=settings(log)) as sidecar,
        pytest.raises(LaunchError, match="not this installation's"),
    ):
        _ = sidecar.ca_pem
    assert engine.api.inspect_volume(NAMES.audit)
    engine.api.remove_volume(NAMES.audit)
    assert left(engine) == []
    assert capsys.readouterr().err == ""


def test_a_record_that_cannot_be_brought_home_is_kept_and_said(
    engine: Engine, image: str, log: Path, agent: Agent
) -> None:
    """Here the host's log was replaced by another one meanwhile."""
    with Launcher(engine, image, agent, settings(log)) as launcher:
        launcher.await_word("open")
        launcher.process.kill()
        launcher.process.wait()
    log.unlink()
    other = log.with_name("other.jsonl")
    with ContainerSidecar.start(engine, image=image, config=settings(other)) as sidecar:
        # It takes what is left as its own first, and that begins a log.
        assert sidecar.ca_pem
    assert verify(other).ok
    engine.api.create_volume(NAMES.audit, labels=make_labels("audit", IDENTITY))
    _spoil(engine, image)
    with pytest.raises(LaunchError, match="kept"):
        salvage(engine.api, IDENTITY, other)
    assert left(engine) == [NAMES.audit]
    engine.api.remove_volume(NAMES.audit)


def _spoil(engine: Engine, image: str) -> None:
    """Put a log into the volume that follows on nothing."""
    code = (
        "from pathlib import Path\n"
        "from bot_bottle.audit import AuditLog\n"
        "AuditLog.open(Path('/var/lib/bot-bottle/audit.jsonl')).close()\n"
    )
    made = engine.api.create_container(
        image,
        entrypoint=["python3", "-c", code],
        command=[],
        host_config=engine.api.create_host_config(binds=[f"{NAMES.audit}:/var/lib/bot-bottle"]),
    )
    engine.api.start(made)
    assert engine.api.wait(made)["StatusCode"] == 0
    remove_container(engine.api, made["Id"])
