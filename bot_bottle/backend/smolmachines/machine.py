"""One bottle's machine: made or started again, stopped; and what the engine knows of ours."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bot_bottle import process
from bot_bottle.backend.smolmachines import engine, freezing, guest
from bot_bottle.errors import BotBottleError, LaunchError, UnavailableError
from bot_bottle.installation import installation_id
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bot_bottle.backend.limits import EffectiveLimits
    from bot_bottle.secret import Secret

IDENTITY = "bot-bottle.identity"
INSTALLATION = "bot-bottle.installation"
ROLE = "bot-bottle.role"
IMAGE = "bot-bottle.image"
AGENT_ROLE, PROBE_ROLE = "agent", "probe"

#: Without a list of names the engine forwards every DNS question to this host's resolver; with one, those for
#: each name in it, and for whatever stands below it. An address counts as a name too. This is one that no
#: question can ask for: a label has at most 63 bytes (RFC 1035, 2.3.4).
_NO_NAME = "x" * 64

_MIB = 1 << 20
_OWN_SECONDS = 120.0
_RESIZE_SECONDS = 60.0
_GONE = "the machine of bottle {name} has ended; the session is over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Where the engine hands a machine's connections over: ``127.0.0.1:PORT`` and this launch's token."""

    address: str
    token: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """What one machine is made of. ``image`` is a folder or an image archive; ``origin`` tells it from others
    and from its own later contents (see :func:`bot_bottle.backend.smolmachines.images.origin`).
    """

    identity: str
    image: str
    origin: str = ""
    limits: EffectiveLimits
    processors: int
    role: str = AGENT_ROLE


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRecord:
    """A machine as the engine lists it; ``state`` is ``running`` or another word, such as ``stopped``.

    ``memory_mib`` and ``processors`` are those of its next start; ``origin`` is empty where it is not known.
    """

    name: str
    identity: str
    role: str
    state: str
    memory_mib: int
    processors: int
    origin: str = ""


def machine_name(identity: str) -> str:
    """Give the name of a bottle's machine."""
    return f"bot-bottle-{identity}"


class BootError(LaunchError):
    """A machine did not come up, or not in the engine's time, as on a host with more to do than it can."""


#: The engine's words for a machine of which it heard nothing for its half minute, and for one that switched
#: itself off while it came up, as a kernel does that cannot go on.
_NO_BOOT = ("did not become ready", "(code 0) before the agent was ready")


class Machine:
    """A running machine. It ends when this process does, however that ends; its disk stays."""

    def __init__(self, handle: Any, name: str) -> None:
        self.name = name
        self._handle = handle

    @classmethod
    def create(cls, settings: MachineSettings, binding: Binding | None) -> Machine:
        """Make and start a new machine, without any network where there is no ``binding``.

        Raises ``LaunchError`` with nothing left (``BootError`` where another try may help),
        ``UnavailableError`` where the engine is not installed.
        """
        name = machine_name(settings.identity)
        with _told_apart(), engine.engine_at_work("the bottle's machine could not be started") as smol:
            reach = {"allow_hosts": [_NO_NAME], "allow_cidrs": [f"{guest.SIDECAR_ADDRESS}/32"]}
            config = smol.MachineConfig(
                name=name,
                image=settings.image or None,
                persistent=True,
                labels=_labels(settings),
                egress_interceptor=_interceptor(smol, binding) if binding else None,
                resources=smol.ResourceSpec(
                    cpus=settings.processors,
                    memory_mb=_mebibytes(settings.limits),
                    **(reach if binding else {"network": False}),
                ),
            )
            return cls(smol.Machine.create(config, engine.here()), name)

    @classmethod
    def start_again(cls, identity: str, binding: Binding) -> Machine:
        """Start the machine of a kept bottle; raises as :meth:`create`, and where it is gone."""
        name = machine_name(identity)
        require_kept(identity)
        with _told_apart(), engine.engine_at_work("the bottle's machine could not be started again") as smol:
            handle = smol.Machine.connect(name, engine.here(egress_interceptor=_interceptor(smol, binding)))
        return cls(handle, name)

    def run(self, script: str, *, user: str = "0:0", args: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run one of our own scripts, passed on its standard input; gives its exit code and its output.

        Raises ``LaunchError`` where the machine does not answer.
        """
        return self._run(["/bin/sh", "-s", "--", *args], script, user)

    def run_given(self, script: str, given: str, *, user: str = "0:0") -> int:
        """Run a short script that reads ``given``; gives its exit code. Raises as :meth:`run`."""
        return self._run(["/bin/sh", "-c", script], given, user)[0]

    def _run(self, argv: list[str], given: str, user: str) -> tuple[int, str]:
        with engine.engine_at_work("the bottle's machine does not answer") as smol:
            options = smol.ExecOptions(stdin=given, user=user, workdir="/", timeout=_OWN_SECONDS)
            result = self._handle.exec(argv, options)
        return int(result.exit_code), f"{result.stdout}{result.stderr}"

    def alive(self) -> bool:
        """Tell whether the machine runs."""
        with contextlib.suppress(BotBottleError), engine.engine_at_work("the machine cannot be asked"):
            return str(self._handle.state()) == "running"
        return False

    def thaw(self) -> None:
        """Let it go on where it is held still (see :mod:`bot_bottle.backend.smolmachines.freezing`)."""
        freezing.thaw(os.getpid())

    def stop(self) -> None:
        """Stop the machine in order, so that its disk is whole; raises ``LaunchError``."""
        self.thaw()  # it writes its disk itself
        with engine.engine_at_work("the bottle's machine could not be stopped"):
            self._handle.stop(timeout_secs=0)


def boot(start: Callable[[], Machine]) -> Machine:
    """Start a machine, once more where it did not come up in time; raises what ``start`` raises."""
    try:
        return start()
    except BootError as error:
        print(f"bot-bottle: {error}; trying once more", file=sys.stderr)
        return start()


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    """Raise a boot that took too long, or came to nothing, as ``BootError``."""
    try:
        yield
    except LaunchError as error:
        if any(words in str(error) for words in _NO_BOOT):
            raise BootError(str(error)) from error
        raise


def gone(name: str) -> LaunchError:
    """Give the error of a bottle whose machine ended."""
    return LaunchError(_GONE.format(name=name))


def ours(identity: str = "") -> tuple[MachineRecord, ...]:
    """List this installation's machines, optionally one bottle's; raises ``LaunchError``."""
    wanted = {INSTALLATION: installation_id()} | ({IDENTITY: identity} if identity else {})
    with engine.engine_at_work("the engine's machines could not be listed") as smol:
        found = smol.Machine.list(engine.here(), labels=wanted)
        return tuple(
            MachineRecord(
                name=str(one.name),
                identity=str((one.labels or {}).get(IDENTITY, "")),
                role=str((one.labels or {}).get(ROLE, "")),
                state=str(one.state),
                memory_mib=int(one.resources.memory_mib) if one.resources else 0,
                processors=int(one.resources.cpus) if one.resources else 0,
                origin=str((one.labels or {}).get(IMAGE, "")),
            )
            for one in found
        )


def delete(name: str) -> None:
    """Delete a machine and its disk, running or not; one that is gone is no error. Raises ``LaunchError``."""
    with engine.engine_at_work(f"machine {legible(name)} could not be removed") as smol:
        smol.Machine.delete_by_name(name, engine.here())


def stop(name: str) -> None:
    """Stop a machine and keep its disk; raises ``LaunchError``."""
    with engine.engine_at_work(f"machine {legible(name)} could not be stopped") as smol:
        smol.Machine.open(name, engine.here()).stop(timeout_secs=0)


def resize(identity: str, limits: EffectiveLimits, processors: int) -> None:
    """Give a kept bottle's machine the memory and processors of its next start; raises ``LaunchError``."""
    wanted = _mebibytes(limits)
    for record in ours(identity):
        if (record.memory_mib, record.processors) != (wanted, processors):
            argv = engine.update_argv(record.name, memory_mib=wanted, processors=processors)
            done = process.run(argv, env=engine.client_env(), timeout=_RESIZE_SECONDS)
            if done.returncode != 0:
                words = process.last_line(done.stderr, f"exit code {done.returncode}")
                raise LaunchError(f"the limits of {identity} could not be given to its machine: {words}")


def require_kept(identity: str) -> None:
    """Raise ``UnavailableError`` where the engine no longer has a kept bottle's machine."""
    if not any(record.name == machine_name(identity) for record in ours(identity)):
        raise UnavailableError(
            f"the machine of {identity} is gone from the engine, and its home and workspace with it; remove "
            f"what is left with: bot-bottle cleanup {identity}"
        )


def _mebibytes(limits: EffectiveLimits) -> int:
    return max(1, limits.memory // _MIB)


def _labels(settings: MachineSettings) -> dict[str, str]:
    labels = {INSTALLATION: installation_id(), ROLE: settings.role, IDENTITY: settings.identity}
    return labels | ({IMAGE: settings.origin} if settings.origin else {})


def _interceptor(smol: Any, binding: Binding) -> Any:
    return smol.EgressInterceptor(binding.address, binding.token.reveal())
