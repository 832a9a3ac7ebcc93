"""What the docker backend asks an engine for, says of it, refuses, and takes for its own; no engine runs."""

from __future__ import annotations

import contextlib
import json
import threading
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from docker import APIClient
from docker.errors import APIError, NotFound

from bot_bottle import bottle_state, paths
from bot_bottle.agent_provider.plan import AgentProvisionPlan
from bot_bottle.backend.docker import engine as engines
from bot_bottle.backend.docker import leftovers, runtimes, volumes
from bot_bottle.backend.docker import sidecar as sidecars
from bot_bottle.backend.docker.agent import HOLDER_UID, AgentSettings, container_options
from bot_bottle.backend.docker.backend import DockerBackend, _explained
from bot_bottle.backend.docker.facts import EngineFacts
from bot_bottle.backend.docker.labels import make_labels
from bot_bottle.backend.docker.runtimes import Runtime
from bot_bottle.backend.docker.sidecar import ContainerSidecar
from bot_bottle.backend.limits import EffectiveLimits
from bot_bottle.backend.plan import BottlePlan, BottleSpec
from bot_bottle.errors import LaunchError, UnavailableError, UsageError
from bot_bottle.git_gate.remote import GateRemote, SshKey
from bot_bottle.manifest.model import (
    Manifest,
    ManifestAgentProvider,
    ManifestBottle,
    ManifestLimits,
)
from bot_bottle.operator_config import DockerConfig
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import Pin, SidecarConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IDENTITY = "tester-abcde"
LIMITS = EffectiveLimits(memory=1 << 30, cpus=1.5, processes=100, open_files=512)
SETTINGS = AgentSettings(
    name="bot-bottle-tester-abcde", identity=IDENTITY, image="sha256:1", home_volume="vol", limits=LIMITS
)
RUNC = Runtime(name="runc", program="runc")
RUNSC = Runtime(name="runsc", program="/usr/bin/runsc", args=("--network=host",))
FACTS = EngineFacts(
    product="Docker",
    version="20.10.24",
    api_version="1.41",
    os_type="linux",
    architecture="x86_64",
    runtimes=(RUNC,),
    security=frozenset({"seccomp"}),
    cgroup_version="2",
    holds_memory=True,
    holds_cpu=True,
    holds_pids=True,
    memory=8 << 30,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bb"
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(folder))
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def api() -> Iterator[APIClient]:
    """Give a client that was never connected: it only writes requests."""
    with contextlib.closing(APIClient(base_url="unix:///nonexistent", version="1.41")) as client:
        yield client


def test_the_agents_container_has_nothing_that_it_does_not_need(api: APIClient) -> None:
    options = container_options(api, SETTINGS, FACTS)
    host = options["host_config"]
    assert options["user"] == f"{HOLDER_UID}:{HOLDER_UID}"
    assert options["healthcheck"] == {"test": ["NONE"]}
    assert options["stdin_open"]
    assert not options["tty"]
    assert options["labels"] == make_labels("agent", IDENTITY)
    assert (host["NetworkMode"], host["CapDrop"], host["ReadonlyRootfs"]) == ("none", ["ALL"], True)
    assert (host["Dns"], host["LogConfig"]["Type"]) == (["127.0.0.1"], "none")
    assert (host["AutoRemove"], host["Init"], host.get("Privileged", False)) == (True, False, False)
    assert host["IpcMode"] == "private"
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (1 << 30, 1 << 30, 1_500_000_000)
    assert 100 <= host["PidsLimit"] <= 110
    assert {(limit["Name"], limit["Hard"]) for limit in host["Ulimits"]} == {("nofile", 512), ("core", 0)}
    plain, profile = host["SecurityOpt"]
    assert plain == "no-new-privileges"
    assert json.loads(profile.removeprefix("seccomp="))["defaultAction"] == "SCMP_ACT_ALLOW"
    (mount,) = host["Mounts"]
    assert (mount["Type"], mount["Source"], mount["Target"]) == ("volume", "vol", "/home/agent")
    for place, words in host["Tmpfs"].items():
        assert {"nosuid", "nodev"} <= set(words.split(",")), place
    assert "mode=755" in host["Tmpfs"]["/run/bot-bottle"]
    assert "uid=" not in host["Tmpfs"]["/run/bot-bottle"] + host["Tmpfs"]["/etc/ssl/certs"]
    for given in ("Binds", "Devices", "CapAdd", "VolumesFrom", "PortBindings", "PidMode", "UsernsMode"):
        assert not host.get(given), given
    assert "Env" not in json.dumps(options)
    assert "environment" not in options
    assert options["use_config_proxy"] is False


def test_memory_files_fit_well_into_the_bottles_memory(api: APIClient) -> None:
    host = container_options(api, SETTINGS, FACTS)["host_config"]
    sizes = [int(words.rpartition("size=")[2]) for words in host["Tmpfs"].values()]
    assert sum(sizes) + host["ShmSize"] < LIMITS.memory * 3 // 4


def test_what_an_engine_cannot_do_is_not_asked_of_it(api: APIClient) -> None:
    poor = replace(FACTS, security=frozenset(), holds_memory=False, holds_cpu=False, holds_pids=False)
    host = container_options(api, SETTINGS, poor, ipv6=False)["host_config"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert not {"Memory", "MemorySwap", "NanoCpus", "PidsLimit"} & set(host)
    assert not [name for name in host["Sysctls"] if "ipv6" in name]
    host = container_options(api, replace(SETTINGS, runtime="runsc", gvisor=True), FACTS)["host_config"]
    assert host["Runtime"] == "runsc"
    assert 2 * LIMITS.processes < host["PidsLimit"] < 2 * LIMITS.processes + 300


class FakeApi:
    """Answers as an engine with these containers and volumes; remembers what was removed."""

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self.volumes_by_name: dict[str, dict[str, str]] = {}
        self.removed: list[str] = []
        self.known: list[str] = []
        self.networks: dict[str, Any] = {"bridge": {"IPAM": {"Config": [{"Gateway": "172.17.0.1"}]}}}

    def inspect_network(self, name: str) -> dict[str, Any]:
        return dict(self.networks[name])

    def inspect_container(self, container: str) -> dict[str, Any]:
        if container not in self.known:
            raise NotFound("no such container")
        return {"Id": container}

    def containers(self, *, filters: dict[str, list[str]], **options: bool) -> list[dict[str, Any]]:
        assert options == {"all": True}  # those that are no longer, or not yet, running too
        return [one for one in self.listed if _matches(one["Labels"], filters)]

    def volumes(self, filters: dict[str, list[str]]) -> dict[str, Any]:
        found = [
            {"Name": name, "Labels": labels}
            for name, labels in self.volumes_by_name.items()
            if _matches(labels, filters)
        ]
        return {"Volumes": found or None}

    def inspect_volume(self, name: str) -> dict[str, Any]:
        if name not in self.volumes_by_name:
            raise NotFound("no such volume")
        return {"Name": name, "Labels": self.volumes_by_name[name]}

    def create_volume(self, name: str, labels: dict[str, str]) -> None:
        self.volumes_by_name.setdefault(name, labels)

    def remove_volume(self, name: str) -> None:
        if self.volumes_by_name.pop(name, None) is None:
            raise NotFound("no such volume")
        self.removed.append(name)

    def remove_container(self, container: str, *, v: bool, force: bool) -> None:
        assert v
        assert force
        self.listed = [one for one in self.listed if one["Id"] != container]
        self.removed.append(container)

    def add(self, name: str, labels: dict[str, str]) -> None:
        self.listed.append({"Id": name, "Names": [f"/{name}"], "Labels": labels})


def _matches(labels: dict[str, str], filters: dict[str, list[str]]) -> bool:
    return all(labels.get(one.partition("=")[0]) == one.partition("=")[2] for one in filters["label"])


@pytest.fixture
def fake() -> FakeApi:
    return FakeApi()


def foreign(role: str, identity: str) -> dict[str, str]:
    return {**make_labels("agent", identity), "bot-bottle.role": role, "bot-bottle.installation": "f" * 32}


def test_leftovers_are_what_this_installations_dead_launches_left(fake: FakeApi) -> None:
    alive, kept = "alive-bbbbb", "kept-ccccc"
    for identity in (alive, kept):
        bottle_state.create_state(bottle_state.BottleMetadata(identity=identity, backend="docker"))
        fake.volumes_by_name[f"{identity}-home"] = make_labels("home", identity)
        fake.volumes_by_name[f"{identity}-audit"] = make_labels("audit", identity)
    fake.add("of-the-living", make_labels("agent", alive))
    fake.add("of-the-dead", make_labels("agent", IDENTITY))
    fake.add("of-another", foreign("agent", "other-ddddd"))
    fake.add("of-nobody", make_labels("agent", "../../etc"))
    fake.volumes_by_name["dead-home"] = make_labels("home", IDENTITY)
    fake.volumes_by_name["dead-doors"] = make_labels("sidecar", IDENTITY)
    fake.volumes_by_name["other-home"] = foreign("home", "other-ddddd")
    with bottle_state.hold_lock(alive):
        found = leftovers.find(fake)  # type: ignore[arg-type]
    assert [(one.identity, one.kind) for one in found] == [
        (IDENTITY, leftovers.CONTAINER),
        (kept, leftovers.AUDIT),
        (IDENTITY, leftovers.HOME),
        (IDENTITY, leftovers.VOLUME),
    ]
    assert "of-the-dead" in found[0].describe
    assert str(paths.audit_path(kept)) in found[1].describe


def test_what_an_engine_only_remembers_is_no_leftover(fake: FakeApi) -> None:
    """An engine that was killed lists such a container as dead and knows nothing of it otherwise."""
    labels = make_labels("agent", IDENTITY)
    fake.listed.append({"Id": "ghost", "Names": None, "Labels": labels, "State": "dead"})
    assert leftovers.find(fake) == ()  # type: ignore[arg-type]
    fake.known.append("ghost")
    assert [one.kind for one in leftovers.find(fake)] == [leftovers.CONTAINER]  # type: ignore[arg-type]


def test_a_leftover_is_removed_and_removing_it_twice_is_no_error(fake: FakeApi) -> None:
    fake.add("dead", make_labels("agent", IDENTITY))
    fake.add("other", foreign("agent", IDENTITY))
    fake.volumes_by_name = {
        volumes.home_name(IDENTITY): make_labels("home", IDENTITY),
        "doors": make_labels("sidecar", IDENTITY),
    }
    for _ in range(2):
        for kind in (leftovers.CONTAINER, leftovers.HOME, leftovers.VOLUME):
            leftovers.remove(fake, leftovers._leftover(IDENTITY, kind, kind))  # type: ignore[arg-type]
    assert sorted(fake.removed) == sorted(["dead", "doors", volumes.home_name(IDENTITY)])
    assert [one["Id"] for one in fake.listed] == ["other"]


def test_a_session_that_began_meanwhile_keeps_what_it_has(fake: FakeApi) -> None:
    bottle_state.create_state(bottle_state.BottleMetadata(identity=IDENTITY))
    fake.add("alive", make_labels("agent", IDENTITY))
    with bottle_state.hold_lock(IDENTITY), pytest.raises(LaunchError, match="running already"):
        leftovers.remove(fake, leftovers._leftover(IDENTITY, leftovers.CONTAINER, "x"))  # type: ignore[arg-type]
    assert fake.removed == []


def test_a_home_is_fresh_for_a_new_launch_and_there_for_a_resumed_one(fake: FakeApi) -> None:
    with pytest.raises(LaunchError, match=f"bot-bottle cleanup {IDENTITY}"):
        volumes.require_home(fake, IDENTITY)  # type: ignore[arg-type]
    name = volumes.make_home(fake, IDENTITY)  # type: ignore[arg-type]
    assert volumes.require_home(fake, IDENTITY) == name  # type: ignore[arg-type]
    volumes.make_home(fake, IDENTITY)  # type: ignore[arg-type]
    assert fake.removed == [name]
    for _ in range(2):
        volumes.remove_home(fake, IDENTITY)  # type: ignore[arg-type]
    assert fake.volumes_by_name == {}


def test_a_volume_of_somebody_else_under_the_name_is_never_taken_nor_removed(fake: FakeApi) -> None:
    fake.volumes_by_name[volumes.home_name(IDENTITY)] = foreign("home", IDENTITY)
    for act in (volumes.make_home, volumes.require_home, volumes.remove_home):
        with pytest.raises(LaunchError, match="not this installation's"):
            act(fake, IDENTITY)  # type: ignore[arg-type]
    assert fake.removed == []


def test_a_bottle_is_looked_for_on_the_engine_it_lies_on() -> None:
    bottle_state.create_state(bottle_state.BottleMetadata(identity=IDENTITY))
    assert volumes.noted_engine(IDENTITY) == ""
    volumes.require_same_engine(IDENTITY, "unix:///b")
    volumes.note_engine(IDENTITY, "unix:///a")
    volumes.require_same_engine(IDENTITY, "unix:///a")
    with pytest.raises(UnavailableError, match="export DOCKER_HOST=unix:///a"):
        volumes.require_same_engine(IDENTITY, "unix:///b")
    assert "unix:///a" in DockerBackend().kept_at(IDENTITY)


class FakeEngine:
    """An engine as far as the backend looks before it starts anything."""

    def __init__(self, facts: EngineFacts, api: FakeApi) -> None:
        self.facts = facts
        self.api = api
        self.endpoint = self
        self.url = "unix:///a"
        self.describe = "Docker 20.10.24 at unix:///a"
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, fake: FakeApi) -> FakeEngine:
    engine = FakeEngine(FACTS, fake)
    monkeypatch.setattr(engines, "connect", lambda: engine)
    return engine


def make_plan(tmp_path: Path, **changes: Any) -> BottlePlan:
    plan = BottlePlan(
        spec=BottleSpec(manifest=Manifest(), agent_name="tester", user_cwd=tmp_path),
        identity=IDENTITY,
        backend_name="docker",
        bottle=ManifestBottle(
            name="b", path=tmp_path / "b.md", agent_provider=ManifestAgentProvider(template="command")
        ),
        provision=AgentProvisionPlan(template="command", program="", argv=("true",)),
        routes=(),
        state_dir=bottle_state.bottle_state_dir(IDENTITY),
        audit_path=tmp_path / "audit.jsonl",
        guest_env={},
        secrets={},
    )
    return replace(plan, **changes)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
def test_a_pin_to_loopback_is_refused_with_what_to_write(
    engine: FakeEngine, tmp_path: Path, address: str
) -> None:
    backend = DockerBackend()
    backend.check(make_plan(tmp_path, pins={"api.test": Pin(address="10.0.0.1", port=8443)}))
    with pytest.raises(UsageError, match=r"api\.test leads to .*--backend bubblewrap"):
        backend.check(make_plan(tmp_path, pins={"api.test": Pin(address=address)}))
    assert engine.closed == 0


def test_a_key_in_the_operators_ssh_agent_is_refused_with_what_to_do(
    engine: FakeEngine, tmp_path: Path
) -> None:
    backend = DockerBackend()
    own = SshKey(public="ssh-ed25519 AAAA", private=Secret("-----BEGIN"))
    remote = GateRemote(
        host="git.test", name="p", scheme="ssh", user="git", upstream_host="git.test", port=None,
        path="/p.git", key=own,
    )  # fmt: skip
    backend.check(make_plan(tmp_path, git_remotes=(remote,)))
    agents = replace(remote, key=SshKey(public="ssh-ed25519 AAAA", agent="/run/agent.sock"))
    with pytest.raises(UsageError, match=r"git\.remotes\.git\.test: .*ssh agent.*without a passphrase"):
        backend.check(make_plan(tmp_path, git_remotes=(agents,)))
    assert engine.closed == 0


def test_a_runtime_the_engine_has_not_is_refused(engine: FakeEngine, tmp_path: Path, home: Path) -> None:
    config = home / "config.toml"
    config.write_text('[docker]\nruntime = "kata"\n')
    config.chmod(0o600)
    with pytest.raises(UsageError, match=r"kata.* it has: runc"):
        DockerBackend().check(make_plan(tmp_path))
    result = DockerBackend().probe()
    assert result.level == "unavailable"
    assert "kata" in result.detail


def test_gvisor_is_chosen_named_and_refused(engine: FakeEngine, tmp_path: Path, home: Path) -> None:
    engine.facts = replace(FACTS, runtimes=(RUNC, RUNSC))
    config = home / "config.toml"
    for text in ("", '[docker]\nruntime = "auto"\n', '[docker]\nruntime = "runsc"\n'):
        config.write_text(text)
        config.chmod(0o600)
        DockerBackend().check(make_plan(tmp_path))
        assert DockerBackend().boundary == (
            "container without network, own kernel in user space (gVisor); Docker 20.10.24 at unix:///a"
        )
        assert DockerBackend().probe().detail.endswith("; bottles run in gVisor (runsc)")
    engine.facts = replace(FACTS, runtimes=(RUNC, replace(RUNSC, args=())))
    with pytest.raises(UsageError, match="network stack of its own"):
        DockerBackend().check(make_plan(tmp_path))
    assert DockerBackend().probe().level == "unavailable"
    config.write_text("")
    DockerBackend().check(make_plan(tmp_path))
    result = DockerBackend().probe()
    assert result.level == "ok"
    assert result.detail.endswith("to which no sidecar can be joined")
    assert result.remedy.startswith("register one that uses its container's network: sudo runsc install")
    assert DockerBackend().boundary.count("shared kernel; ") == 1
    assert "gVisor is not used" in DockerBackend().boundary


def test_roots_that_cannot_be_read_are_refused_before_anything_is_made(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE: .*no such file"):
        DockerBackend().check(make_plan(tmp_path))


def test_the_boundary_names_kernel_and_engine(engine: FakeEngine) -> None:
    assert DockerBackend().boundary == (
        "container without network, seccomp, shared kernel; Docker 20.10.24 at unix:///a"
    )
    engine.facts = replace(FACTS, security=frozenset())
    assert "NO system-call filter" in DockerBackend().boundary


def test_the_probe_says_whose_rights_and_what_is_missing(engine: FakeEngine) -> None:
    result = DockerBackend().probe()
    assert (result.level, result.remedy) == ("ok", "")
    assert result.detail == "Docker 20.10.24 at unix:///a, runs as root"
    engine.facts = replace(FACTS, security=frozenset({"rootless"}), holds_memory=False, holds_cpu=False)
    result = DockerBackend().probe()
    assert result.level == "degraded"
    assert "rootless" in result.detail
    assert "not bounded here: memory and cpu" in result.detail
    assert "no system-call filter" in result.detail
    engine.facts = replace(FACTS, security=frozenset({"seccomp", "userns"}))
    assert "users remapped" in DockerBackend().probe().detail


def test_the_demo_finds_this_machine_behind_the_sidecars_network(
    engine: FakeEngine, fake: FakeApi, home: Path
) -> None:
    assert DockerBackend().host_address() == "172.17.0.1"
    fake.networks["bridge"] = {"IPAM": {"Config": [{"Gateway": "fd00::1"}, {"Subnet": "10.0.0.0/8"}]}}
    with pytest.raises(UnavailableError, match="bridge has no gateway"):
        DockerBackend().host_address()
    config = home / "config.toml"
    config.write_text('[docker]\nnetwork = "own"\nsidecar_base_image = "local:1"\n')
    config.chmod(0o600)
    fake.networks["own"] = {"IPAM": {"Config": [{"Gateway": "10.9.0.1/24"}]}}
    assert DockerBackend().host_address() == "10.9.0.1"
    assert tomllib.loads(DockerBackend().demo_settings()) == {
        "docker": {
            "base_image": "local:1",
            "sidecar_base_image": "local:1",
            "network": "own",
            "runtime": "auto",
        }
    }
    assert engine.closed


def test_limits_are_the_engines_and_half_of_its_memory_is_the_default(
    engine: FakeEngine, tmp_path: Path
) -> None:
    bottle = make_plan(tmp_path).bottle
    held = {one.name: one for one in DockerBackend().limits(bottle)}
    assert (held["memory"].value, held["memory"].holds) == ("4.0 GiB", True)
    assert held["cpu"].value == "all"
    assert not held["disk"].holds
    engine.facts = replace(FACTS, holds_memory=False, holds_cpu=False)
    bottle = replace(bottle, limits=ManifestLimits(memory=1 << 29, cpus=2))
    held = {one.name: one for one in DockerBackend().limits(bottle)}
    assert (held["memory"].value, held["memory"].holds) == ("512 MiB", False)
    assert held["memory"].how == "the engine cannot limit memory"
    assert not held["cpu"].holds


def test_a_resumed_bottle_needs_its_home_on_its_engine(
    engine: FakeEngine, fake: FakeApi, tmp_path: Path
) -> None:
    bottle_state.create_state(bottle_state.BottleMetadata(identity=IDENTITY))
    plan = make_plan(tmp_path)
    plan = replace(plan, spec=replace(plan.spec, identity=IDENTITY))
    with pytest.raises(LaunchError, match="is gone from this engine"):
        DockerBackend().check(plan)
    volumes.make_home(fake, IDENTITY)  # type: ignore[arg-type]
    DockerBackend().check(plan)
    volumes.note_engine(IDENTITY, "unix:///elsewhere")
    with pytest.raises(UnavailableError, match="unix:///elsewhere"):
        DockerBackend().check(plan)


def test_where_no_bottle_ever_lay_on_an_engine_none_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("an engine was asked")

    monkeypatch.setattr(engines, "connect", refuse)
    bottle_state.create_state(bottle_state.BottleMetadata(identity=IDENTITY))
    assert DockerBackend().leftovers() == ()
    DockerBackend().forget(IDENTITY)


def test_the_engines_connections_are_closed_with_the_backend(engine: FakeEngine) -> None:
    backend = DockerBackend()
    assert backend.boundary
    del backend
    assert engine.closed == 1


def test_an_engine_that_was_asked_ahead_is_asked_once(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FakeEngine] = []

    def connect() -> FakeEngine:
        asked.append(engine)
        return engine

    monkeypatch.setattr(engines, "connect", connect)
    backend = DockerBackend()
    backend.begin_ahead()
    backend.begin_ahead()
    assert backend.boundary
    assert backend.boundary
    assert len(asked) == 1, "asked once"
    del asked[:]
    backend.end_ahead()
    assert engine.closed == 0, "the backend has it, until its own end"
    del backend
    assert engine.closed == 1


def test_an_engine_that_was_asked_ahead_in_vain_is_a_sentence_to_whoever_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise UnavailableError("no engine answers")

    monkeypatch.setattr(engines, "connect", refuse)
    backend = DockerBackend()
    backend.begin_ahead()
    with pytest.raises(UnavailableError, match=r"^no engine answers$"):
        _ = backend.boundary
    backend.begin_ahead()
    backend.end_ahead()  # nobody needed it: nobody is told


@pytest.mark.parametrize("answers_first", [True, False])
def test_an_engine_that_nobody_needed_is_let_go_when_it_answers(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, answers_first: bool
) -> None:
    may_answer, answered = threading.Event(), threading.Event()

    def answer() -> FakeEngine:
        assert may_answer.wait(30)
        answered.set()
        return engine

    monkeypatch.setattr(engines, "connect", answer)
    backend = DockerBackend()
    backend.begin_ahead()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "bot-bottle-engine"]
    if answers_first:
        may_answer.set()
        thread.join(30)
    backend.end_ahead()
    may_answer.set()
    thread.join(30)
    assert answered.is_set()
    assert engine.closed == 1


def test_a_launch_that_gvisor_fails_says_how_to_do_without_it() -> None:
    chosen = runtimes.Choice(name="runsc", gvisor=RUNSC)
    with pytest.raises(LaunchError, match=r"^it broke \(in gVisor, .*runsc; .* write runtime = \"runc\""):
        fail_in(chosen, DockerConfig(runtime="auto"))
    for choice, config in ((chosen, DockerConfig(runtime="runsc")), (runtimes.Choice(), DockerConfig())):
        with pytest.raises(LaunchError, match=r"^it broke$"):
            fail_in(choice, config)


def fail_in(choice: runtimes.Choice, config: DockerConfig) -> None:
    with _explained(choice, config):
        raise LaunchError("it broke")


@pytest.mark.parametrize("has_ipv6", [True, False])
def test_the_doors_of_gvisor_open_without_ipv6_too(
    api: APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_ipv6: bool
) -> None:
    """What an ordinary runtime says on a machine without IPv6; other troubles are passed on."""
    tried: list[dict[str, str]] = []
    removed: list[str] = []
    trouble = "open /proc/sys/net/ipv6/conf/all/disable_ipv6: no such file or directory: net.ipv6"

    def keep(_api: APIClient, options: dict[str, Any]) -> str:
        tried.append(options["host_config"]["Sysctls"])
        if any("ipv6" in name for name in tried[-1]) and not has_ipv6:
            raise APIError("500", explanation=trouble)
        return ""

    monkeypatch.setattr(sidecars, "keep_doors", keep)
    monkeypatch.setattr(sidecars, "remove_container", lambda _api, name: removed.append(name))
    config = SidecarConfig(identity=IDENTITY, routes=(), audit_path=str(tmp_path / "a"))
    engine: Any = FakeEngine(FACTS, FakeApi())
    sidecar = ContainerSidecar(engine, image="sha256:1", config=config, on_death=None)
    assert sidecar._keep_doors(api, "agent", open_network=True) == ""
    assert "net.ipv4.ip_unprivileged_port_start" in tried[-1]
    assert len(tried) == (1 if has_ipv6 else 2)
    assert removed == ([] if has_ipv6 else [f"bot-bottle-{IDENTITY}-doorkeeper"])
    trouble = "no such image"
    if not has_ipv6:
        with pytest.raises(APIError):
            sidecar._keep_doors(api, "agent", open_network=True)


def test_the_external_pipelock_program_is_refused_with_what_to_do(tmp_path: Path) -> None:
    plan = BottlePlan(
        spec=BottleSpec(manifest=Manifest(), agent_name="tester", user_cwd=tmp_path),
        identity=IDENTITY,
        backend_name="docker",
        bottle=ManifestBottle(
            name="b", path=tmp_path / "b.md", agent_provider=ManifestAgentProvider(template="command")
        ),
        provision=AgentProvisionPlan(template="command", program="", argv=("true",)),
        routes=(),
        state_dir=tmp_path / "state",
        audit_path=tmp_path / "audit.jsonl",
        guest_env={},
        secrets={},
        second_hop="/usr/bin/pipelock",
    )
    with pytest.raises(UsageError, match=r"use --backend bubblewrap, or remove engine: external"):
        DockerBackend().check(plan)
