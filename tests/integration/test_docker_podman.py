"""Podman's socket speaks Docker's language: the images are built there and a container is talked to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("docker", reason="the Docker SDK is not installed")

from bot_bottle.backend.docker.agent_image import agent_source, ensure_agent_image
from bot_bottle.backend.docker.engine import Engine, connect
from bot_bottle.backend.docker.progress import Progress
from bot_bottle.backend.docker.sidecar_image import SIDECAR_UID, ensure_sidecar_image
from bot_bottle.backend.docker.streams import STDOUT, Multiplexed
from bot_bottle.manifest.model import ManifestAgentProvider, ManifestBottle
from bot_bottle.operator_config import DockerConfig
from tests.support.base_image import NoBaseError, base_archive
from tests.support.engine import BASE_IMAGE, place_on_disk
from tests.support.outside import REPO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

CONFIG = DockerConfig(base_image=BASE_IMAGE, sidecar_base_image=BASE_IMAGE)

# Whatever this machine is set up for: no systemd is needed, and no other runtime than the one found.
_SETTINGS = """
[engine]
runtime = "tests"
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
tests = ["{runtime}"]
"""

# Podman asks for more processes and open files than root may have where it lacks CAP_SYS_RESOURCE; there it
# is given what this process may have. A bottle's own bounds are lower.
_RUNTIME = """#!{python}
import json, os, resource, sys
args = sys.argv[1:]

def bound(process):
    for one in process.get("rlimits", []):
        most = resource.getrlimit(getattr(resource, one["type"]))[1]
        if most != resource.RLIM_INFINITY:
            one["hard"], one["soft"] = min(one["hard"], most), min(one["soft"], most)

def rewrite(path, part):
    with open(path) as file:
        spec = json.load(file)
    bound(part(spec))
    with open(path, "w") as file:
        json.dump(spec, file)

if "create" in args and "--bundle" in args:
    rewrite(os.path.join(args[args.index("--bundle") + 1], "config.json"), lambda spec: spec["process"])
if "exec" in args and "--process" in args:
    rewrite(args[args.index("--process") + 1], lambda spec: spec)
os.execv({program!r}, [{program!r}, *args])
"""


@pytest.fixture(scope="module")
def podman() -> Iterator[Engine]:
    """Run Podman's service with a store and a network namespace of its own."""
    program = shutil.which("podman")
    runtime = shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or shutil.which("crun")
    if program is None or runtime is None or os.getuid() != 0:
        pytest.skip("podman and a runtime are needed, and root; install them with: apt install podman runc")
    try:
        base = base_archive()
    except NoBaseError as error:
        pytest.skip(f"there is no base for images: {error}")
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="bot-bottle-podman-", dir=place_on_disk()))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        wrapper = folder / "runtime"
        wrapper.write_text(_RUNTIME.format(python=sys.executable, program=runtime))
        wrapper.chmod(0o755)
        (folder / "containers.conf").write_text(_SETTINGS.format(runtime=wrapper))
        path = folder / "podman.sock"
        store = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "overlay"]
        log = stack.enter_context((folder / "log").open("wb"))
        service = subprocess.Popen(
            ["unshare", "--net", program, *store, "system", "service", "--time=0", f"unix://{path}"],
            env={**os.environ, "CONTAINERS_CONF": f"{folder}/containers.conf"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        stack.callback(service.wait)
        stack.callback(service.terminate)
        if not _answers(path, service):
            pytest.skip(f"podman's service does not come up here: {(folder / 'log').read_text()[-500:]}")
        engine = stack.enter_context(connect({"DOCKER_HOST": f"unix://{path}"}))
        imported = json.loads(engine.api.import_image_from_file(str(base), "bot-bottle-test-imported"))
        # Podman calls whatever it imports "latest".
        repository, _, tag = BASE_IMAGE.partition(":")
        engine.api.tag(imported["id"], repository, tag)
        yield engine


def _answers(path: Path, service: subprocess.Popen[bytes], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while service.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def engine(podman: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "bb"))
    return podman


def converse(engine: Engine, image: str, command: Sequence[str], given: bytes = b"") -> str:
    """Run a command in a container, give it ``given`` and then the end of its input; gives its output."""
    api = engine.api
    host = api.create_host_config(network_mode="none", cap_drop=["ALL"])
    container = api.create_container(
        image, entrypoint=list(command), stdin_open=True, host_config=host, use_config_proxy=False
    )["Id"]
    try:
        connection = api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        with Multiplexed(connection) as streams:
            api.start(container)
            streams.write(given, timeout=60)
            streams.half_close(timeout=60)
            return b"".join(data for stream, data in streams if stream == STDOUT).decode()
    finally:
        api.remove_container(container, force=True)


def test_podman_is_known_for_what_it_is(engine: Engine) -> None:
    assert engine.facts.product == "Podman"
    assert engine.facts.os_type == "linux"
    assert engine.describe.startswith("Podman ")


def test_the_sidecars_image_is_built_and_found_again(engine: Engine) -> None:
    image = ensure_sidecar_image(engine, CONFIG, Progress(None))
    again = ensure_sidecar_image(engine, CONFIG, Progress(None))
    assert (again.id, again.fresh) == (image.id, False)
    script = "import os, bot_bottle.sidecar.service; print(os.getuid(), os.stat('/run/bot-bottle').st_uid)"
    said = converse(engine, image.id, ["python3", "-c", script])
    assert said.split() == [str(SIDECAR_UID), str(SIDECAR_UID)]


def test_an_agents_image_is_built_and_hears_the_end_of_its_input(engine: Engine) -> None:
    provider = ManifestAgentProvider(template="command")
    bottle = ManifestBottle(name="b", path=Path("b.md"), agent_provider=provider)
    image = ensure_agent_image(engine, agent_source(bottle), CONFIG, Progress(None))
    said = converse(engine, image.id, ["sh", "-c", "id -un; pwd; cat; echo over"], b"y" * 100_000 + b"\n")
    assert said == "agent\n/home/agent/workspace\n" + "y" * 100_000 + "\nover\n"


_IN_A_BOTTLE = """
id -un
grep -c : /proc/net/dev
grep Seccomp: /proc/self/status
touch /run/mine && echo written
unshare -U true 2>/dev/null || echo no new user namespace
curl -s -o /dev/null -w '%{http_code}\\n' http://nobody-allowed.test/
exit 7
"""


def test_a_whole_bottle_runs_there_and_leaves_only_what_is_kept(engine: Engine, tmp_path: Path) -> None:
    home = tmp_path / "bb"
    argv = json.dumps(["/bin/sh", "-c", _IN_A_BOTTLE])
    for path, text in (
        (home / "bottles" / "one.md", f"---\nagent_provider: {{template: command, argv: {argv}}}\n---\n"),
        (home / "agents" / "one.md", "---\nbottle: one\n---\nWork.\n"),
        (
            home / "config.toml",
            f'[docker]\nbase_image = "{BASE_IMAGE}"\nsidecar_base_image = "{BASE_IMAGE}"\n',
        ),
    ):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    home.chmod(0o700)

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "bot_bottle", *args],
            env={**os.environ, "DOCKER_HOST": engine.endpoint.url, "PYTHONPATH": str(REPO)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    ended = run("start", "one", "--backend", "docker", "--headless", "--prompt", "x", "--yes", "--no-cwd")
    assert ended.returncode == 7, ended.stderr
    assert ended.stdout.splitlines() == [
        "agent",
        "1",
        "Seccomp:\t2",
        "written",
        "no new user namespace",
        "403",
    ]
    assert engine.api.containers(all=True) == []
    volumes = [one["Name"] for one in engine.api.volumes()["Volumes"] or []]
    assert [name for name in volumes if not name.endswith("-home")] == []
    assert len(volumes) == 1
    removed = run("cleanup", "--all", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert not engine.api.volumes()["Volumes"]
