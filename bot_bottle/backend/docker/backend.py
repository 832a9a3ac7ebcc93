"""Bottles in containers, on the engine that the operator's client would use too."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import sys
import tempfile
import weakref
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from bot_bottle import paths
from bot_bottle.agent_account import AGENT_WORKSPACE
from bot_bottle.backend import limits as shared_limits
from bot_bottle.backend.base import BottleBackend, ProbeResult
from bot_bottle.backend.docker import dialect, images, leftovers, runtimes, volumes
from bot_bottle.backend.docker import engine as engines
from bot_bottle.backend.docker.agent import AgentContainer, AgentSettings
from bot_bottle.backend.docker.archives import read_volume
from bot_bottle.backend.docker.bottle import DockerBottle, sidecar_gone
from bot_bottle.backend.docker.connecting import Connecting
from bot_bottle.backend.docker.engine import engine_errors
from bot_bottle.backend.docker.progress import Progress
from bot_bottle.backend.docker.roots import operator_roots
from bot_bottle.backend.docker.salvage import salvage
from bot_bottle.backend.docker.sidecar import ContainerSidecar
from bot_bottle.backend.docker.sidecar_image import DEFAULT_BASE
from bot_bottle.backend.elsewhere import held_elsewhere
from bot_bottle.backend.util import sidecar_config, write_trust
from bot_bottle.control_client import control_listener
from bot_bottle.errors import LaunchError, UnavailableError, UsageError
from bot_bottle.legible import legible
from bot_bottle.operator_config import load_operator_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bot_bottle.backend.base import Leftover, Prepared
    from bot_bottle.backend.docker.engine import Engine
    from bot_bottle.backend.plan import BottlePlan, LimitStatus
    from bot_bottle.manifest.model import ManifestBottle
    from bot_bottle.operator_config import DockerConfig, OperatorConfig

NAME = leftovers.NAME
_DEFAULT_NETWORK = "bridge"
_WORKSPACE = PurePosixPath(AGENT_WORKSPACE)
_PIECE = 1 << 20


class DockerBackend(BottleBackend):
    """Bottles made of an agent's container without a network and a sidecar's container beside it."""

    name = NAME

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._connecting: Connecting | None = None
        self._images: tuple[str, str] | None = None

    accounts = (
        "No root inside for the agent: uid 1000, without capabilities; what places the CA and the "
        "environment as root is the launcher's."
    )
    not_prevented = (
        "The kernel is shared (in gVisor, a part of it): an exploit within what the filter permits gets out.",
        "Who may speak to the engine is root on its machine; a bottle cannot, the operator's programs can.",
    )

    @property
    def boundary(self) -> str:
        """Say what stands between agent and host; needs the engine. Raises ``UnavailableError``."""
        facts = self._connect().facts
        choice = runtimes.choose(facts, _config().runtime)
        parts = ["container without network"]
        if choice.gvisor is not None:
            # It applies a container's filter to the first process at most, never to what is run in it later.
            parts.append("own kernel in user space (gVisor)")
        else:
            filtered = "seccomp" in facts.security
            parts.append("seccomp" if filtered else "NO system-call filter (the engine has none)")
            parts.append("shared kernel")
        said = (", ".join(parts), self._connect().describe, choice.note)
        return "; ".join(part for part in said if part)

    def begin_ahead(self) -> None:
        """Ask the engine what it can; see :class:`BottleBackend`."""
        if self._engine is None and self._connecting is None:
            self._connecting = Connecting()

    def end_ahead(self) -> None:
        """Let go of an engine that nobody asked for; see :class:`BottleBackend`."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.give_up()

    def host_address(self) -> str:
        """Give the gateway of the sidecar's network, which is this machine where the engine is on it."""
        name = _config().network or _DEFAULT_NETWORK
        with engine_errors(f"the engine's network {name} could not be looked at", UnavailableError):
            found = self._connect().api.inspect_network(name)
        for part in (found.get("IPAM") or {}).get("Config") or ():
            gateway = str(part.get("Gateway") or "").partition("/")[0]
            if gateway and ":" not in gateway:
                return gateway
        raise UnavailableError(f"the engine's network {name} has no gateway to this machine")

    def demo_settings(self) -> str:
        """Give the operator's images and network; an agent of the demo needs an interpreter in its image."""
        config = _config()
        base = config.sidecar_base_image or DEFAULT_BASE
        settings = {
            "base_image": config.base_image or base,
            "sidecar_base_image": base,
            "network": config.network,
            "runtime": config.runtime,
            "build_ca": config.build_ca,
        }
        lines = (f"{name} = {json.dumps(value)}\n" for name, value in settings.items() if value)
        return "[docker]\n" + "".join(lines)

    def probe(self) -> ProbeResult:
        """Ask the engine what it can; see :class:`BottleBackend`."""
        try:
            engine = self._connect()
            choice = runtimes.choose(engine.facts, _config().runtime)
        except (UnavailableError, UsageError) as error:
            detail, _, remedy = str(error).partition("; ")
            return ProbeResult(backend=NAME, level="unavailable", detail=detail, remedy=remedy)
        missing = engine.facts.lacking
        detail = f"{engine.describe}, {engine.facts.standing}"
        if missing:
            detail = f"{detail}; {', '.join(missing)}"
        if choice.gvisor is not None:
            detail = f"{detail}; bottles run in gVisor ({choice.name})"
        note, _, remedy = choice.note.partition("; ")
        detail = f"{detail}; {note}" if note else detail
        return ProbeResult(backend=NAME, level="degraded" if missing else "ok", detail=detail, remedy=remedy)

    def limits(self, bottle: ManifestBottle) -> tuple[LimitStatus, ...]:
        """Say which limits the engine holds."""
        facts = self._connect().facts
        by = f"cgroup v{facts.cgroup_version} of the engine" if facts.cgroup_version else "the engine"

        def held(can: bool, what: str) -> shared_limits.Held:  # noqa: FBT001 - one fact of two
            return can, by if can else f"the engine cannot limit {what}"

        return shared_limits.limit_statuses(
            shared_limits.effective_limits(bottle.limits, facts.memory),
            memory=held(facts.holds_memory, "memory"),
            processes=held(facts.holds_pids, "processes"),
            open_files=(True, "rlimit"),
            cpu=held(facts.holds_cpu, "processors"),
            disk="home and workspace are a volume of the engine",
        )

    def check(self, plan: BottlePlan) -> None:
        """Refuse a plan that this engine cannot launch; see :class:`BottleBackend`."""
        if plan.second_hop:
            raise UsageError(
                f"bottle {plan.bottle.name} has pipelock: {{engine: external}}, which is a program of this "
                "machine, and a sidecar in a container has none of these; use --backend bubblewrap, or "
                "remove engine: external"
            )
        for host, pin in plan.pins.items():
            if ipaddress.ip_address(pin.address).is_loopback:
                raise UsageError(
                    f"the pin of {host} leads to {pin.address}, which a sidecar in a container cannot reach: "
                    "loopback there is its own; pin an address of this machine that containers reach, or use "
                    "--backend bubblewrap"
                )
        for remote in plan.git_remotes:
            if remote.key is not None and remote.key.agent:
                raise UsageError(
                    f"git.remotes.{remote.host}: its key is used through your ssh agent, which a sidecar in "
                    "a container cannot reach; name a key without a passphrase made for this purpose, or use "
                    "--backend bubblewrap"
                )
        operator_roots(os.environ)
        engine = self._connect()
        runtimes.choose(engine.facts, _config().runtime)
        dialect.require_filter(engine)
        if plan.spec.identity:
            volumes.require_same_engine(plan.identity, engine.endpoint.url)
            volumes.require_home(engine.api, plan.identity)

    def build(self, plan: BottlePlan) -> None:
        """Have both images, built where they are not there yet."""
        self._images = self._build(plan)

    def build_ahead(
        self, bottles: Sequence[ManifestBottle], config: OperatorConfig, *, refresh: bool = False
    ) -> tuple[Prepared, ...]:
        """Have the images that launches of these bottles need."""
        return images.build_ahead(self._connect(), bottles, config.docker, refresh=refresh)

    def save_image(
        self, bottle: ManifestBottle, folder: Path, *, state_dir: Path | None = None, refresh: bool = False
    ) -> Path:
        """Build an agent's image on this engine and save it; see :class:`BottleBackend`."""
        return images.save_agent_image(self._connect(), bottle, state_dir, _config(), folder, refresh=refresh)

    def dockerfile_of(self, bottle: ManifestBottle, state_dir: Path) -> str:
        """Give the Dockerfile in force; see :class:`BottleBackend`."""
        from bot_bottle.backend.docker.agent_image import agent_source  # noqa: PLC0415 - no engine is asked

        return agent_source(bottle, state_dir).text

    def dockerfile_notes(self, text: str, in_force: str) -> tuple[str, ...]:
        """Say what a human should weigh of an agent's Dockerfile; see :class:`BottleBackend`."""
        from bot_bottle.backend.docker.asked import asked_notes, check_asked  # noqa: PLC0415 - rarely asked for

        check_asked(text, "this Dockerfile")
        return asked_notes(text, in_force)

    def bottle_of(self, identity: str) -> DockerBottle:
        """Give the handle of a bottle that another process runs; see :class:`BottleBackend`."""
        held = held_elsewhere(identity)
        return DockerBottle(identity, held, held, {}, serve=held.await_ready)

    @contextlib.contextmanager
    def launch(self, plan: BottlePlan) -> Iterator[DockerBottle]:
        """Bring up sidecar and agent side by side, join them, and take both down on every way out."""
        sidecar_image, agent_image = self._images or self._build(plan)
        engine, config = self._connect(), _config()
        choice = runtimes.choose(engine.facts, config.runtime)
        identity = plan.identity
        resumed = bool(plan.spec.identity)
        with contextlib.ExitStack() as stack:
            volumes.note_engine(identity, engine.endpoint.url)
            with engine_errors("what an earlier launch left could not be removed"):
                volumes.remove_containers(engine.api, "agent", identity)
            sidecar = ContainerSidecar.start(
                engine,
                image=sidecar_image,
                config=replace(sidecar_config(plan), roots=operator_roots(os.environ)),
                network=config.network,
                on_death=lambda words: print(
                    f"bot-bottle: {sidecar_gone(identity)} ({words})", file=sys.stderr
                ),
            )
            agent: AgentContainer | None = None
            stack.callback(lambda: _take_down(agent, sidecar))
            home = volumes.require_home if resumed else volumes.make_home
            settings = AgentSettings(
                name=volumes.agent_name(identity),
                identity=identity,
                image=agent_image,
                home_volume=home(engine.api, identity),
                limits=shared_limits.effective_limits(plan.bottle.limits, engine.facts.memory),
                runtime=choice.name,
                gvisor=choice.gvisor is not None,
            )
            agent = AgentContainer(engine, settings)
            with _explained(choice, config):
                agent.start()
            sidecar.begin_doors(agent.id, open_network=choice.gvisor is not None)
            agent.place_env(plan.guest_env, resumed=resumed)

            def serve() -> None:
                write_trust(plan.state_dir, sidecar.ca_pem)
                agent.place_ca(sidecar.ca_pem)
                sidecar.await_doors()
                with stack.enter_context(control_listener(plan.state_dir)) as control:
                    sidecar.serve_control(control)

            bottle = DockerBottle(identity, agent, sidecar, engine.client_env(), serve=serve)
            bottle.user_space_kernel = choice.gvisor is not None
            yield bottle

    def freeze(self, identity: str, launcher: int) -> bool:
        """Pause the agent's container; the sidecar's runs on, and refuses everything."""
        del launcher
        engine = self._connect()
        found = volumes.agent_containers(engine.api, identity)
        for container in found:
            # Paused already is no error: it may be the second panic.
            if container.get("State") != "paused":
                with engine_errors(f"the container of {identity} could not be paused"):
                    engine.api.pause(container["Id"])
        return bool(found)

    def thaw(self, identity: str, launcher: int) -> None:
        """Let the agent's container go on."""
        del launcher
        engine = self._connect()
        for container in volumes.agent_containers(engine.api, identity):
            if container.get("State") == "paused":
                with engine_errors(f"the container of {identity} could not be let go on"):
                    engine.api.unpause(container["Id"])

    def complete_record(self, identity: str) -> None:
        """Bring home what a launcher that was killed did not get; see :class:`BottleBackend`."""
        if volumes.noted_engine(identity):
            self._salvaged(identity)

    def _salvaged(self, identity: str) -> Engine:
        engine = self._connect()
        volumes.require_same_engine(identity, engine.endpoint.url)
        salvage(engine.api, identity, paths.audit_path(identity))
        return engine

    def forget(self, identity: str) -> None:
        """Remove a bottle's home from the engine, and bring home what is left of its record."""
        if not volumes.noted_engine(identity):
            return
        engine = self._salvaged(identity)
        with engine_errors(f"the containers of {identity} could not be removed"):
            volumes.remove_containers(engine.api, "agent", identity)
        volumes.remove_home(engine.api, identity)

    def kept_at(self, identity: str) -> str:
        """Name the volume and the engine it lies on."""
        place = f"the volume {volumes.home_name(identity)}"
        noted = volumes.noted_engine(identity)
        return f"{place} on {legible(noted)}" if noted else place

    @contextlib.contextmanager
    def open_workspace(self, identity: str) -> Iterator[BinaryIO]:
        """Copy the workspace out of its volume, as an archive; see :class:`BottleBackend`."""
        engine = self._connect()
        volumes.require_same_engine(identity, engine.endpoint.url)
        home = volumes.require_home(engine.api, identity)
        failed = f"the workspace of {identity} could not be read from the engine"
        with tempfile.TemporaryFile() as file:
            with engine_errors(failed), read_volume(engine.api, identity, home, _WORKSPACE) as stream:
                if stream is None:
                    raise LaunchError(f"{failed}: it is not there any more")
                shutil.copyfileobj(stream, file, _PIECE)
            file.seek(0)
            yield cast("BinaryIO", file)

    def leftovers(self) -> tuple[Leftover, ...]:
        """List what dead launches left on the engine; nothing where there never was one."""
        if not volumes.has_used_an_engine():
            return ()
        return leftovers.find(self._connect().api)

    def remove(self, leftover: Leftover) -> None:
        """Remove one leftover; removing it twice is no error."""
        leftovers.remove(self._connect().api, leftover)

    def _build(self, plan: BottlePlan) -> tuple[str, str]:
        engine, config = self._connect(), _config()
        progress = Progress(sys.stderr)
        sidecar = images.sidecar_image(engine, config, progress)
        return sidecar, images.agent_image(engine, plan, config, progress)

    def _connect(self) -> Engine:
        if self._engine is None:
            connecting, self._connecting = self._connecting, None
            self._engine = connecting.engine() if connecting is not None else engines.connect()
            weakref.finalize(self, self._engine.close)
        return self._engine


def _take_down(agent: AgentContainer | None, sidecar: ContainerSidecar) -> None:
    """End both at the same time: an engine takes as long for one as for two."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - brings logging, at the end of all

    with ThreadPoolExecutor(1) as helper:
        ended = helper.submit(agent.close) if agent is not None else None
        try:
            sidecar.close()
        finally:
            if ended is not None:
                ended.result()


def _config() -> DockerConfig:
    return load_operator_config().docker


@contextlib.contextmanager
def _explained(choice: runtimes.Choice, config: DockerConfig) -> Iterator[None]:
    """Name the runtime of a container that could not be started, where nobody but us chose it."""
    try:
        yield
    except LaunchError as error:
        if not choice.name or config.runtime == choice.name:
            raise
        raise LaunchError(
            f"{error} (in gVisor, by the engine's runtime {choice.name}; "
            f'to do without it write runtime = "{runtimes.ORDINARY}" under [docker] in config.toml)'
        ) from error
