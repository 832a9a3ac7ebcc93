"""Which runtime an agent's container gets: gVisor's where a bottle can be joined to it, else a sentence."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("docker", reason="the Docker SDK is not installed")

from docker import APIClient

from bot_bottle.backend.docker import loopback
from bot_bottle.backend.docker.facts import EngineFacts, read_facts
from bot_bottle.backend.docker.runtimes import Choice, Runtime, choose, for_our_own
from bot_bottle.backend.docker.sidecar_options import doorkeeper_options, sidecar_options
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUNC = Runtime(name="runc", program="runc")
APART = Runtime(name="runsc", program="/usr/bin/runsc")
SHARED = Runtime(name="shared", program="/usr/bin/runsc", args=("--network=host",))
SHIM = Runtime(name="runsc-v1", shim="io.containerd.runsc.v1")
KATA = Runtime(name="kata", shim="io.containerd.kata.v2")


def facts(*runtimes: Runtime, default: str = "runc", product: str = "Docker") -> EngineFacts:
    return EngineFacts(
        product=product,
        version="20.10.24",
        api_version="1.41",
        os_type="linux",
        architecture="x86_64",
        runtimes=runtimes,
        default_runtime=default,
    )


def test_what_an_engine_says_of_its_runtimes() -> None:
    info = {
        "DefaultRuntime": "runc",
        "Runtimes": {
            "runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=host"]},
            "runc": {"path": "runc"},
            "kata": {"runtimeType": "io.containerd.kata.v2", "options": {"ConfigPath": "/etc/kata"}},
            "odd": None,
        },
    }
    found = read_facts({}, info).runtimes
    assert found == (KATA, Runtime(name="odd"), RUNC, replace(SHARED, name="runsc"))
    assert read_facts({}, {"Runtimes": ["runc"]}).runtimes == ()


@pytest.mark.parametrize(
    ("args", "shared"),
    [
        ((), False),
        (("--network=host",), True),
        (("-network=host",), True),
        (("--debug", "--network", "host"), True),
        (("--network=sandbox",), False),
        (("--network=none",), False),
        (("--network=host", "--network=sandbox"), False),
        (("--network",), False),
        (("--network-raw=host", "network=host"), False),
    ],
)
def test_how_gvisor_was_told_to_use_its_containers_network(args: tuple[str, ...], shared: bool) -> None:
    assert replace(APART, args=args).shares_network is shared


@pytest.mark.parametrize("runtime", [APART, SHARED, SHIM, Runtime(name="runsc")])
def test_gvisor_is_known_by_its_program(runtime: Runtime) -> None:
    assert runtime.is_gvisor


@pytest.mark.parametrize("runtime", [RUNC, KATA, Runtime(name="runsc", program="/usr/bin/crun")])
def test_a_name_alone_makes_no_gvisor(runtime: Runtime) -> None:
    assert not runtime.is_gvisor


@pytest.mark.parametrize("wanted", ["", "auto"])
def test_auto_takes_gvisor_that_a_bottle_can_be_joined_to(wanted: str) -> None:
    assert choose(facts(RUNC), wanted) == Choice()
    assert choose(facts(RUNC, APART, SHARED), wanted) == Choice(name="shared", gvisor=SHARED)
    other = replace(SHARED, name="zz")
    assert choose(facts(RUNC, SHARED, other, default="zz"), wanted) == Choice(name="zz", gvisor=other)


@pytest.mark.parametrize("apart", [APART, SHIM])
def test_auto_says_what_to_register_where_gvisor_is_there_in_vain(apart: Runtime) -> None:
    choice = choose(facts(RUNC, apart), "auto")
    assert (choice.name, choice.gvisor) == ("", None)
    assert choice.note.startswith(f"gVisor is not used: the runtime {apart.name} ")
    assert (
        "sudo runsc install --runtime runsc-bottle -- --network=host, and have the engine reload"
        in choice.note
    )
    # Podman counts what it would know how to use, installed or not.
    assert choose(facts(RUNC, apart, product="Podman"), "auto") == Choice()


@pytest.mark.parametrize("security", ["userns", "rootless"])
def test_auto_leaves_users_remapped_rather_than_taking_gvisor(security: str) -> None:
    engine = replace(facts(RUNC, SHARED), security=frozenset({security}))
    choice = choose(engine, "auto")
    assert (choice.name, choice.gvisor) == ("", None)
    assert choice.note.endswith("; to try, name it in config.toml: docker.runtime = shared")
    assert choose(engine, "shared") == Choice(name="shared", gvisor=SHARED)


def test_auto_never_takes_less_than_the_engines_own_choice() -> None:
    with pytest.raises(UsageError, match=r"default runtime is runsc, which is gVisor.*--network=host"):
        choose(facts(RUNC, APART, default="runsc"), "auto")
    assert choose(facts(RUNC, APART, SHARED, default="runsc"), "auto").name == "shared"
    assert choose(facts(RUNC, APART, default="runsc"), "runc") == Choice(name="runc")


def test_a_runtime_named_by_the_operator_is_taken_or_refused() -> None:
    engine = facts(RUNC, KATA, APART, SHARED)
    assert choose(engine, "kata") == Choice(name="kata")
    assert choose(engine, "shared") == Choice(name="shared", gvisor=SHARED)
    with pytest.raises(UsageError, match=r"config\.toml is runsc, which is gVisor with a network stack"):
        choose(engine, "runsc")
    with pytest.raises(UsageError, match=r"config\.toml is other, .* it has: runc, kata, runsc, shared"):
        choose(engine, "other")


def test_our_own_containers_never_run_in_gvisor() -> None:
    assert for_our_own(facts(RUNC, SHARED)) == ""
    assert for_our_own(facts(RUNC, SHARED, default="shared")) == "runc"


@pytest.fixture
def api() -> Iterator[APIClient]:
    """Give a client that was never connected: it only writes requests."""
    with contextlib.closing(APIClient(base_url="unix:///nonexistent", version="1.41")) as client:
        yield client


@pytest.mark.parametrize("default", ["runc", "shared"])
def test_the_doorkeeper_opens_a_network_that_gvisor_left_as_it_was(
    api: APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: str
) -> None:
    """Its runtime writes the switches while it is still root, so it has no capability for it to lose."""
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "bb"))
    engine = facts(RUNC, SHARED, default=default)
    wanted = {"image": "sha256:1", "identity": "tester-abcde"}
    for switches in (None, loopback.switches(), loopback.switches(ipv6=False)):
        made = doorkeeper_options(api, engine, **wanted, agent="agent", volume="v", switches=switches)
        host = made["host_config"]
        assert host.get("Sysctls") == switches
        assert (host["CapDrop"], host.get("CapAdd"), made.get("user")) == (["ALL"], None, None)
        assert host.get("Runtime") == (None if default == "runc" else "runc")
    beside = sidecar_options(api, engine, **wanted, network="")["host_config"]
    assert beside.get("Runtime") == (None if default == "runc" else "runc")
    assert "Sysctls" not in beside
