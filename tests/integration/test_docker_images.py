"""Images, really built: what is in them, that they are found again, and what a failure leaves (nothing)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

pytest.importorskip("docker", reason="the Docker SDK is not installed")

from bot_bottle.backend.docker.agent_image import agent_source, ensure_agent_image
from bot_bottle.backend.docker.engine import Engine, connect
from bot_bottle.backend.docker.images import save_agent_image
from bot_bottle.backend.docker.labels import installation_id
from bot_bottle.backend.docker.progress import Progress
from bot_bottle.backend.docker.sidecar_image import SIDECAR_UID, ensure_sidecar_image
from bot_bottle.backend.docker.streams import Multiplexed
from bot_bottle.demo.authority import Authority
from bot_bottle.errors import LaunchError, UnavailableError
from bot_bottle.manifest.model import ManifestAgentProvider, ManifestBottle
from bot_bottle.operator_config import DockerConfig
from tests.support.engine import BASE_IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot_bottle.backend.docker.builds import BuiltImage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

CONFIG = DockerConfig(base_image=BASE_IMAGE, sidecar_base_image=BASE_IMAGE)
QUIET = Progress(None)


@pytest.fixture
def engine(engine_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Reach the tests' engine with an installation of the test's own; no container may be left behind."""
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "bb"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "client"))
    with connect({"DOCKER_HOST": engine_host}) as reached:
        yield reached
        assert containers(reached) == []


def containers(engine: Engine) -> list[str]:
    """List the containers of builds; bottles of other tests have names of ours."""
    found = engine.api.containers(all=True)
    return [one["Id"] for one in found if not any(name.startswith("/bot-bottle-") for name in one["Names"])]


def run(engine: Engine, image: str, command: Sequence[str], *, user: str = "") -> str:
    """Run one command in a new container of ``image`` without network and give what it prints."""
    api = engine.api
    host = api.create_host_config(network_mode="none", read_only=True, cap_drop=["ALL"])
    container = api.create_container(
        image, entrypoint=list(command), host_config=host, use_config_proxy=False, user=user or None
    )
    try:
        connection = api.attach_socket(container, params={"stdout": 1, "stderr": 1, "stream": 1})
        with Multiplexed(connection) as streams:
            api.start(container)
            said = b"".join(data for _stream, data in streams).decode()
        assert api.wait(container)["StatusCode"] == 0, said
        return said
    finally:
        api.remove_container(container, force=True)


def layers(engine: Engine, image: BuiltImage) -> list[str]:
    found: list[str] = engine.api.inspect_image(image.id)["RootFS"]["Layers"]
    return found


def bottle(dockerfile: Path | str = "", template: str = "command") -> ManifestBottle:
    provider = ManifestAgentProvider(template=template, dockerfile=str(dockerfile))
    return ManifestBottle(name="b", path=Path("b.md"), agent_provider=provider)


def agent(engine: Engine, text: str, folder: Path, config: DockerConfig = CONFIG) -> BuiltImage:
    """Build an agent's image from a Dockerfile of the operator's."""
    folder.mkdir(exist_ok=True)
    path = folder / "Dockerfile"
    path.write_text(text)
    path.chmod(0o644)
    return ensure_agent_image(engine, agent_source(bottle(path)), config, QUIET)


# -- the sidecar's ---------------------------------------------------------------------------------------


def test_the_sidecars_image_is_small_runs_as_nobody_and_holds_what_it_needs(engine: Engine) -> None:
    image = ensure_sidecar_image(engine, CONFIG, QUIET)
    base = engine.api.inspect_image(BASE_IMAGE)["Size"]
    # Half of it is the scanner's rules, twice: the engine, and the program that tells what they are. A fifth
    # is what speaks MCP with agents.
    assert image.size - base < 140 << 20
    script = """
import json, os, ssl, sys
import bot_bottle.sidecar.service, brotli, hyperscan, pwd, uvloop, zstandard
from bot_bottle.pipelock.engine import Betterleaks
from bot_bottle.pipelock.gate import AHEAD, GatedEngine
from cryptography.hazmat.primitives.asymmetric import ec
ec.generate_private_key(ec.SECP256R1())
own = [os.stat(path) for path in ("/run/bot-bottle", "/var/lib/bot-bottle")]
print(json.dumps({"uid": os.getuid(), "gid": os.getgid(), "path": sys.path[0],
                  "dirs": [[one.st_uid, oct(one.st_mode)] for one in own],
                  "account": pwd.getpwuid(os.getuid()).pw_name,
                  "rules": len(Betterleaks().patterns(sure=False)) > 200,
                  "gates": GatedEngine(Betterleaks, None).take_kept_gates(),
                  "ahead": len(list(AHEAD.iterdir())) > 2,
                  "open": [str(path) for path in (AHEAD, *AHEAD.iterdir()) if os.access(path, os.W_OK)],
                  "roots": len(ssl.create_default_context().get_ca_certs()) > 50,
                  "heavy": sorted({"pydantic", "click", "rich", "yaml"} & set(sys.modules))}))
"""
    said = json.loads(run(engine, image.id, ["python3", "-c", script]))
    assert said == {
        "uid": SIDECAR_UID,
        "gid": SIDECAR_UID,
        "path": "/opt/bot-bottle/lib",
        "dirs": [[SIDECAR_UID, "0o40700"]] * 2,
        "account": "sidecar",
        "rules": True,
        "gates": True,
        "ahead": True,
        "open": [],
        "roots": True,
        "heavy": [],
    }
    assert run(engine, image.id, ["git", "--version"]).startswith("git version")
    assert "usage: ssh" in run(engine, image.id, ["sh", "-c", "ssh 2>&1; true"])
    listing = run(engine, image.id, ["sh", "-c", "ls /opt/bot-bottle/lib /opt/bot-bottle/lib/bot_bottle"])
    assert not {"cli", "backend", "demo", "agent_provider"} & set(listing.split())
    # Everything that it imports is compiled: a read-only root could not keep what each start compiled.
    script = (
        "import bot_bottle.sidecar.service, sys, os\n"
        "print([m.__name__ for m in sys.modules.values() if (getattr(m, '__cached__', None) or '')"
        "and not os.path.exists(m.__cached__)])"
    )
    assert run(engine, image.id, ["python3", "-c", script]).strip() == "[]"
    litter = "find / -xdev -name '*.whl' -o -name .cache -o -path '/var/lib/apt/lists/*' 2>/dev/null; true"
    listed = run(engine, image.id, ["sh", "-c", litter], user="0")
    assert not [line for line in listed.split() if "/apt/lists/" in line or line.endswith((".whl", ".cache"))]


def test_the_sidecars_image_is_the_same_each_time_and_built_once(engine: Engine) -> None:
    first = ensure_sidecar_image(engine, CONFIG, QUIET)
    before = {one["Id"] for one in engine.api.images()}
    again = ensure_sidecar_image(engine, CONFIG, QUIET)
    assert (again.id, again.tag, again.fresh) == (first.id, first.tag, False)
    assert {one["Id"] for one in engine.api.images()} == before
    earlier = layers(engine, first)
    anew = ensure_sidecar_image(engine, CONFIG, QUIET, refresh=True)
    assert anew.fresh
    assert anew.tag == first.tag
    assert layers(engine, anew) == earlier, "built from scratch, it is the same to the byte"
    found = engine.api.inspect_image(anew.id)["Config"]
    assert found["Labels"]["bot-bottle.role"] == "image"
    assert found["Labels"]["bot-bottle.installation"] == installation_id()
    assert not found.get("Volumes")


def test_a_base_without_git_is_told_where_none_can_be_had(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = agent(engine, f"FROM {BASE_IMAGE}\nRUN rm -f /usr/bin/git /usr/bin/apt-get\n", tmp_path / "d")
    engine.api.tag(bare.id, "bot-bottle-test-bare", "1")
    with pytest.raises(LaunchError, match="the sidecar's image could not be built, at Step") as caught:
        ensure_sidecar_image(engine, DockerConfig(sidecar_base_image="bot-bottle-test-bare:1"), QUIET)
    assert "\n" not in str(caught.value)
    assert "the base image lacks git and has no apt-get to add it" in capsys.readouterr().err


def test_a_base_without_python_is_refused_with_what_to_name(engine: Engine, tmp_path: Path) -> None:
    bare = agent(engine, f"FROM {BASE_IMAGE}\nRUN rm -f /usr/bin/python3*\n", tmp_path / "d")
    engine.api.tag(bare.id, "bot-bottle-test-bare", "2")
    with pytest.raises(
        UnavailableError, match=r"no Python to run .*docker.sidecar_base_image in config.toml"
    ):
        ensure_sidecar_image(engine, DockerConfig(sidecar_base_image="bot-bottle-test-bare:2"), QUIET)


# -- the agent's -----------------------------------------------------------------------------------------


def test_an_agents_image_has_the_account_and_the_places_of_every_bottle(engine: Engine) -> None:
    image = ensure_agent_image(engine, agent_source(bottle()), CONFIG, QUIET)
    said = run(
        engine,
        image.id,
        ["sh", "-c", "id -un; id -g; pwd; stat -c %u:%g:%a ~agent ~agent/workspace /run/bot-bottle"],
    )
    assert said.split() == [
        "agent",
        "1000",
        "/home/agent/workspace",
        "1000:1000:755",
        "1000:1000:755",
        "0:0:755",
    ]
    config = engine.api.inspect_image(image.id)["Config"]
    assert config["User"] == "1000:1000"
    assert not config.get("Entrypoint")
    assert not config.get("Cmd")
    assert config["Healthcheck"]["Test"] == ["NONE"]


def test_an_account_of_the_same_number_keeps_its_name_beside(engine: Engine, tmp_path: Path) -> None:
    text = f'FROM {BASE_IMAGE}\nRUN useradd -u 1000 -m node\nUSER node\nENTRYPOINT ["/bin/false"]\n'
    image = agent(engine, text, tmp_path / "d")
    assert run(engine, image.id, ["sh", "-c", "id -un; getent passwd node agent"]).split() == [
        "agent",
        "node:x:1000:1000::/home/node:/bin/sh",
        "agent:x:1000:1000:agent:/home/agent:/bin/sh",
    ]


def test_an_image_is_found_again_by_what_it_was_made_of(engine: Engine, tmp_path: Path) -> None:
    text = f"FROM {BASE_IMAGE}\nCOPY . /made/\n"
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "file").write_text("one")
    (folder / "left.key").write_text("not for an image")
    (folder / ".dockerignore").write_text("*.key\n")
    first = agent(engine, text, folder)
    assert first.fresh
    assert run(engine, first.id, ["ls", "/made"]).split() == ["Dockerfile", "file"]
    again = agent(engine, text, folder)
    assert (again.id, again.fresh) == (first.id, False)
    (folder / "left.key").write_text("whatever")
    assert not agent(engine, text, folder).fresh
    (folder / "file").write_text("two")
    second = agent(engine, text, folder)
    assert second.fresh
    assert second.tag != first.tag
    assert run(engine, second.id, ["cat", "/made/file"]) == "two"


def test_a_new_base_makes_a_new_image(engine: Engine, tmp_path: Path) -> None:
    text = "ARG BASE_IMAGE=nowhere:1\nFROM ${BASE_IMAGE}\n"
    first = agent(engine, text, tmp_path / "d")
    engine.api.tag(first.id, "bot-bottle-test-moving", "1")
    moving = DockerConfig(base_image="bot-bottle-test-moving:1")
    second = agent(engine, text, tmp_path / "d", moving)
    assert second.tag != first.tag
    other = agent(engine, f"FROM {BASE_IMAGE}\nRUN echo >/other\n", tmp_path / "e")
    engine.api.tag(other.id, "bot-bottle-test-moving", "1")
    third = agent(engine, text, tmp_path / "d", moving)
    assert third.fresh
    assert run(engine, third.id, ["ls", "/other"]).strip() == "/other"


def test_an_image_is_saved_for_machines_once_for_what_it_was_made_of(engine: Engine, tmp_path: Path) -> None:
    """What microVMs start from where a Docker engine is at hand."""
    folder = tmp_path / "images"
    path = tmp_path / "Dockerfile"
    saved = []
    for text in ("RUN touch /first", "RUN touch /first", "RUN touch /second"):
        path.write_text(f"FROM {BASE_IMAGE}\n{text}\n")
        path.chmod(0o644)
        saved.append(save_agent_image(engine, bottle(path), None, CONFIG, folder))
    assert saved[0] == saved[1] != saved[2]
    assert sorted(folder.iterdir()) == sorted(set(saved))
    with tarfile.open(saved[2]) as archive:
        (manifest,) = json.load(member(archive, "manifest.json"))
        names = set()
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=member(archive, layer)) as files:
                names |= {name.removeprefix("./") for name in files.getnames()}
    assert {"second", "home/agent/workspace"} <= names
    assert "first" not in names


def member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    assert found is not None
    return found


def test_a_ca_for_builds_is_trusted_while_building(engine: Engine, tmp_path: Path) -> None:
    first, second = Authority("first").pem, Authority("second").pem
    config = DockerConfig(base_image=BASE_IMAGE, build_ca="/ca.pem", build_ca_pem=first + second)
    text = (
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n"
        "RUN grep -c BEGIN $NODE_EXTRA_CA_CERTS >/said && tail -n 12 $PIP_CERT >>/said\n"
    )
    image = agent(engine, text, tmp_path / "d", config)
    said = run(engine, image.id, ["cat", "/said"])
    assert said.startswith("2\n")
    assert second.splitlines()[3] in said
    shown = json.dumps(engine.api.history(image.id))
    assert second.splitlines()[3] not in shown


def test_a_build_that_fails_is_one_sentence_with_its_last_lines_above(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"FROM {BASE_IMAGE}\nRUN echo first; echo second >&2; exit 7\n"
    with pytest.raises(LaunchError) as caught:
        agent(engine, text, tmp_path / "d")
    said = str(caught.value)
    assert said.startswith(f"the agent's image ({tmp_path}/d/Dockerfile) could not be built, at Step 2/")
    assert "returned a non-zero code: 7" in said
    assert "\n" not in said
    err = capsys.readouterr().err
    assert "  | first\n" in err
    assert "  | second\n" in err


def test_a_base_that_is_not_to_be_had_is_named_with_where_to_name_another(
    engine: Engine, tmp_path: Path
) -> None:
    missing = "bot-bottle-test-nowhere:1"
    with pytest.raises(
        UnavailableError, match=rf"the image {missing} is not on .*docker.base_image in config"
    ):
        ensure_agent_image(engine, agent_source(bottle()), DockerConfig(base_image=missing), QUIET)
    with pytest.raises(UnavailableError, match=rf"{missing} .*or name another in {tmp_path}/d/Dockerfile"):
        agent(engine, f"FROM {missing}\n", tmp_path / "d")
    with pytest.raises(UnavailableError, match=rf"{missing} .*docker.sidecar_base_image in config.toml"):
        ensure_sidecar_image(engine, DockerConfig(sidecar_base_image=missing), QUIET)


def test_of_many_at_once_one_builds(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN echo {os.getpid()} >/once\n")
    (folder / "Dockerfile").chmod(0o644)
    source = agent_source(bottle(folder / "Dockerfile"))
    found: list[BuiltImage] = []
    host = engine.endpoint.url

    def build() -> None:
        with connect({"DOCKER_HOST": host}) as own:
            found.append(ensure_agent_image(own, source, CONFIG, Progress(None)))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.fresh for one in found) == [False, False, False, True]
    assert len({one.id for one in found}) == 1


_BUILD = """
import sys
from bot_bottle.cli import main
sys.exit(main(["build", "--backend", "docker", "one"]))
"""


def test_a_build_whose_launcher_is_killed_leaves_no_container(engine: Engine, tmp_path: Path) -> None:
    home = tmp_path / "bb"
    home.mkdir(mode=0o700, exist_ok=True)
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN echo begun; sleep 600\n")
    (tmp_path / "Dockerfile").chmod(0o644)
    provider = f"{{template: command, argv: [x], dockerfile: {tmp_path}/Dockerfile}}"
    for path, text in (
        (home / "bottles" / "one.md", f"---\nagent_provider: {provider}\n---\n"),
        (home / "agents" / "one.md", "---\nbottle: one\n---\nWork.\n"),
        (
            home / "config.toml",
            f'[docker]\nbase_image = "{BASE_IMAGE}"\nsidecar_base_image = "{BASE_IMAGE}"\n',
        ),
    ):
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    child = subprocess.Popen(
        [sys.executable, "-c", _BUILD],
        env={**os.environ, "DOCKER_HOST": engine.endpoint.url},
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert child.stderr is not None
    with child, child.stderr:
        said = ""
        while "sleep 600" not in said:
            line = child.stderr.readline()
            assert line, said
            said += line
        wait_until(lambda: len(containers(engine)) == 1)
        child.send_signal(signal.SIGKILL)
    wait_until(lambda: containers(engine) == [])


def wait_until(condition: object, seconds: float = 60.0) -> None:
    """Look again and again until it is so."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)
