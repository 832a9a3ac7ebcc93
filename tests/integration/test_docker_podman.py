"""Podman's socket speaks Docker's language: the images are built there and a container is talked to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

CONFIG = DockerConfig(base_image=BASE_IMAGE, sidecar_base_image=BASE_IMAGE)

# Whatever this machine is set up for: no systemd is needed, no other runtime than the one found, and no
# limits that root itself may not raise here.
_SETTINGS = """
[engine]
runtime = "{runtime}"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
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
        (folder / "containers.conf").write_text(_SETTINGS.format(runtime=Path(runtime).name))
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
