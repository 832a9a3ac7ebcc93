"""Bottles in microVMs: an own kernel behind the processor's virtualisation, one address, one way out."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import secrets
import socket
import sys
import time
from typing import TYPE_CHECKING, BinaryIO

from bot_bottle import bottle_state, paths
from bot_bottle.backend import inside, seccomp
from bot_bottle.backend import limits as shared_limits
from bot_bottle.backend.base import BottleBackend, Leftover, Prepared
from bot_bottle.backend.elsewhere import held_elsewhere
from bot_bottle.backend.host_sidecar import HostSidecar
from bot_bottle.backend.plan import LimitStatus
from bot_bottle.backend.provision import packed
from bot_bottle.backend.registry import IMAGE_BUILDER, get_bottle_backend
from bot_bottle.backend.smolmachines import (
    engine,
    freezing,
    guest,
    images,
    machine,
    probe,
    replacing,
    workspace,
)
from bot_bottle.backend.smolmachines.bottle import SmolmachinesBottle
from bot_bottle.backend.smolmachines.machine import Binding, Machine, MachineSettings
from bot_bottle.backend.smolmachines.machine_code import MACHINE
from bot_bottle.backend.util import sidecar_config, write_trust
from bot_bottle.control_client import control_listener
from bot_bottle.errors import LaunchError, UnavailableError
from bot_bottle.installation import has_installation
from bot_bottle.legible import legible
from bot_bottle.operator_config import load_operator_config
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import Interception

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bot_bottle.backend.base import ProbeResult
    from bot_bottle.backend.plan import BottlePlan
    from bot_bottle.backend.smolmachines.guest import Starter
    from bot_bottle.manifest.model import ManifestBottle
    from bot_bottle.operator_config import OperatorConfig

NAME = probe.NAME
_MACHINE = "machine"
_TOKEN_BYTES = 32
#: The engine's own size of the disk that holds what the agent changes.
_DISK = "20.0 GiB"
#: Whether programs of ours can be made for machines here.
_PROGRAMS = platform.machine() == MACHINE
#: Up to so many bytes of a provider's files go in with the set-up, which spares a launch one command.
_MOST_PACKED = 64 << 10


class SmolmachinesBackend(BottleBackend):
    """A machine a bottle, with the sidecar beside it on this host."""

    name = NAME
    own_kernel = True
    sidecar_address = guest.SIDECAR_ADDRESS

    def __init__(self) -> None:
        self._image: tuple[Path, str] | None = None
        self._sidecar = HostSidecar()

    accounts = (
        "No root inside for the agent: uid 1000, without capabilities; "
        "the machine's own root is the launcher's."
    )
    not_prevented = (
        "A flaw in KVM or the engine's process ends in that process, one of the operator's account.",
    )

    @property
    def boundary(self) -> str:
        """Say what stands between agent and host."""
        return "microVM (KVM), own kernel; its monitor under seccomp and Landlock"

    def demo_settings(self) -> str:
        """Give the operator's image, or what the engine that builds one is to be told."""
        image = load_operator_config().smolmachines.image
        if image:
            return f"[{NAME}]\nimage = {json.dumps(image)}\n"
        return get_bottle_backend(IMAGE_BUILDER).demo_settings()

    def begin_ahead(self) -> None:
        """Have a sidecar load what it is made of; see :class:`BottleBackend`."""
        self._sidecar.begin_ahead()

    def end_ahead(self) -> None:
        """End a sidecar that was never told anything; see :class:`BottleBackend`."""
        self._sidecar.end_ahead()

    def probe(self) -> ProbeResult:
        """Boot a machine once and remember the verdict; see :class:`BottleBackend`."""
        return probe.probe()

    def limits(self, bottle: ManifestBottle) -> tuple[LimitStatus, ...]:
        """Say which limits hold: those of the machine itself, and rlimits in it."""
        limits = shared_limits.effective_limits(bottle.limits, shared_limits.machine_memory())
        processors = _processors(limits)
        whole = limits.cpus is None or limits.cpus == processors
        how = f"{processors} virtual processors" if whole else f"whole processors only: {processors}"
        statuses = shared_limits.limit_statuses(
            limits,
            memory=(True, "the machine's own"),
            processes=(True, "rlimit in the machine"),
            open_files=(True, "rlimit in the machine"),
            cpu=(whole, how),
            disk="",
        )
        disk = LimitStatus(name="disk", value=_DISK, holds=True, how="the machine's own disk")
        return tuple(disk if one.name == "disk" else one for one in statuses)

    def check(self, plan: BottlePlan) -> None:
        """Refuse a plan that cannot be launched here; see :class:`BottleBackend`."""
        refusal = probe.obstacle()
        if refusal is not None:
            raise UnavailableError(f"{refusal.detail}; try: {refusal.remedy}")
        if plan.spec.identity:
            if not replacing.waits(plan.identity):
                machine.require_kept(plan.identity)
        else:
            images.image_source(plan.bottle, load_operator_config())

    def build(self, plan: BottlePlan) -> None:
        """Have what the machine starts from; a kept machine has it already, unless it is another one now."""
        config = load_operator_config()
        if plan.spec.identity:
            self._image = replacing.other_image(plan, config)
            return
        source = images.image_source(plan.bottle, config)
        path = images.ready(source, plan.bottle)
        self._image = path, images.origin(source, path)

    def build_ahead(
        self, bottles: Sequence[ManifestBottle], config: OperatorConfig, *, refresh: bool = False
    ) -> tuple[Prepared, ...]:
        """Fetch or build what the machines of ``bottles`` start from; see :class:`BottleBackend`."""
        found: dict[str, Prepared] = {}
        sources = {bottle.name: images.image_source(bottle, config) for bottle in bottles}
        for bottle in bottles:
            source = sources[bottle.name]
            if source.kind not in {"name", "dockerfile"}:
                continue
            began = time.time()
            path = images.ready(source, bottle, refresh=refresh and f"{source}" not in found)
            info = path.stat()
            before = found.get(f"{source}")
            found[f"{source}"] = Prepared(
                what=source.where,
                name=str(path),
                size=info.st_size,
                fresh=before.fresh if before else info.st_mtime >= began,
                bottles=(*(before.bottles if before else ()), bottle.name),
            )
        return tuple(found.values())

    def dockerfile_of(self, bottle: ManifestBottle, state_dir: Path) -> str:
        """Refuse: a machine is made once; see :class:`BottleBackend`."""
        del bottle, state_dir
        raise UnavailableError(
            "a machine keeps the image that it was made from while it runs; put what is missing into the "
            "image or Dockerfile that the bottle names (agent_provider), end the session and resume it"
        )

    def bottle_of(self, identity: str) -> SmolmachinesBottle:
        """Give the handle of a bottle that another process runs; see :class:`BottleBackend`."""
        held = held_elsewhere(identity)
        return SmolmachinesBottle(identity, held, held, held)

    @contextlib.contextmanager
    def launch(self, plan: BottlePlan) -> Iterator[SmolmachinesBottle]:
        """Bring up sidecar and machine side by side, join them, and take both down on every way out."""
        token = Secret(secrets.token_hex(_TOKEN_BYTES))
        limits = shared_limits.effective_limits(plan.bottle.limits, shared_limits.machine_memory())
        with contextlib.ExitStack() as stack:
            interception = Interception(token=token, address=guest.SIDECAR_ADDRESS)
            sidecar = self._sidecar.start(sidecar_config(plan, interception))
            stack.callback(sidecar.close)
            listener = socket.create_server(("127.0.0.1", 0))
            try:
                binding = Binding(address=f"127.0.0.1:{listener.getsockname()[1]}", token=token)
                running = self._start(plan, limits, binding)
                stack.callback(_stop, running)
                with stack.enter_context(control_listener(plan.state_dir)) as control:
                    sidecar.give_listeners([("interceptor", listener), ("control", control)])
            finally:
                listener.close()
            write_trust(plan.state_dir, sidecar.ca_pem)
            fresh = self._image is not None
            archive = packed(plan.provision, _MOST_PACKED) if fresh and not plan.spec.identity else None
            starter = _prepare(running, plan, sidecar.ca_pem, limits, fresh=fresh, archive=archive or b"")
            provisioned = _PROGRAMS and archive is not None
            bottle = SmolmachinesBottle(plan.identity, running, sidecar, starter, provisioned=provisioned)
            stack.callback(bottle.close)
            yield bottle

    def freeze(self, identity: str, launcher: int) -> bool:
        """Stop the machine's monitor, and so the machine; the sidecar runs on, and refuses everything."""
        del identity
        return freezing.freeze(launcher)

    def thaw(self, identity: str, launcher: int) -> None:
        """Let the machine go on."""
        del identity
        freezing.thaw(launcher)

    def forget(self, identity: str) -> None:
        """Remove a bottle's machine, and its home and workspace with it."""
        for record in machine.ours(identity):
            machine.delete(record.name)

    def kept_at(self, identity: str) -> str:
        """Name the machine."""
        return f"the stopped machine {machine.machine_name(identity)}"

    def open_workspace(self, identity: str) -> AbstractContextManager[BinaryIO]:
        """Copy the workspace out of its machine, as an archive; see :class:`BottleBackend`."""
        return workspace.open_workspace(identity)

    def leftovers(self) -> tuple[Leftover, ...]:
        """List machines of launches that are gone; a kept bottle's stopped one is none."""
        if not has_installation() or not _is_installed():
            return ()
        return tuple(
            Leftover(backend=NAME, identity=record.identity, kind=_MACHINE, describe=_describe(record))
            for record in machine.ours()
            if bottle_state.IDENTITY_PATTERN.fullmatch(record.identity)
            and not bottle_state.is_running(record.identity)
            and (record.state == "running" or not bottle_state.bottle_state_dir(record.identity).is_dir())
        )

    def remove(self, leftover: Leftover) -> None:
        """Remove a machine; one of a kept bottle that runs without a launcher is stopped and stays."""
        kept = bottle_state.bottle_state_dir(leftover.identity).is_dir()
        with contextlib.ExitStack() as stack:
            if kept:
                stack.enter_context(bottle_state.hold_lock(leftover.identity))
            for record in machine.ours(leftover.identity):
                if kept:
                    machine.stop(record.name)
                else:
                    machine.delete(record.name)

    def _start(self, plan: BottlePlan, limits: shared_limits.EffectiveLimits, binding: Binding) -> Machine:
        resumed = bool(plan.spec.identity)
        if self._image is None and not resumed:
            self.build(plan)
        if self._image is None:
            machine.resize(plan.identity, limits, _processors(limits))
            return machine.boot(lambda: Machine.start_again(plan.identity, binding))
        if resumed:
            replacing.take_home(plan.identity)
        image, origin = self._image
        settings = MachineSettings(
            identity=plan.identity,
            image=str(image),
            origin=origin,
            limits=limits,
            processors=_processors(limits),
        )
        return machine.boot(lambda: Machine.create(settings, binding))


def _prepare(
    running: Machine,
    plan: BottlePlan,
    ca_pem: str,
    limits: shared_limits.EffectiveLimits,
    *,
    fresh: bool,
    archive: bytes,
) -> Starter:
    """Let root set the machine up before the agent ever runs in it; says how its commands begin.

    A ``fresh`` machine of a resumed bottle gets the home that the one before had, another what is in
    ``archive``, where programs can be made for it.
    """
    resumed = bool(plan.spec.identity)
    script = guest.set_up_script(
        env=plan.guest_env,
        ca_pem=ca_pem,
        hosts=guest.hosts_of(plan.routes),
        limits=limits,
        fresh=fresh,
        filter_program=seccomp.filter_program(paths.cache_dir()) if _PROGRAMS else b"",
        archive=archive,
    )
    code, told = running.run(script)
    if code != 0:
        words = legible(" ".join(told.split()))[-300:]
        raise LaunchError(f"the bottle's machine could not be set up: {words or f'exit code {code}'}")
    starter = guest.starter(told, ours=_PROGRAMS)
    if resumed and fresh:
        replacing.give_home(plan.identity, starter)
    if resumed:
        code, words = running.run(inside.OPEN_HOME, user=guest.AGENT, args=guest.OPEN_HOME_ARGS)
        if code != 0:
            reason = legible(words.strip())[-300:] or guest.OPEN_HOME_ARGS[1]
            raise LaunchError(f"the kept workspace of {plan.identity} is no folder any more: {reason}")
    return starter


def _processors(limits: shared_limits.EffectiveLimits) -> int:
    """Give a machine's number of processors: whole ones, at most those that this process may use."""
    most = len(os.sched_getaffinity(0))
    return most if limits.cpus is None else max(1, math.ceil(limits.cpus))


def _stop(running: Machine) -> None:
    """Stop a machine on the way out; where that fails, it ends with this process."""
    if not running.alive():
        return
    try:
        running.stop()
    except LaunchError as error:
        print(f"bot-bottle: {error}", file=sys.stderr)


def _describe(record: machine.MachineRecord) -> str:
    what = "running" if record.state == "running" else "stopped"
    return f"{what} machine {record.name} of a launch that is gone"


def _is_installed() -> bool:
    with contextlib.suppress(UnavailableError):
        engine.sdk()
        return True
    return False
