"""Which of an engine's runtimes runs the agent's container: gVisor's, where a bottle can be joined to it.

A bottle's doors are sockets of the kernel's in the container's network namespace. gVisor's own network stack
does not see them; with ``--network=host`` it uses the sockets of its container's namespace, which for an
agent's container holds loopback only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.backend.docker.facts import EngineFacts

AUTO = "auto"
#: The engine's own runtime for ordinary containers, under the name that every engine gives it.
ORDINARY = "runc"
_GVISOR = "runsc"
_REGISTER = (
    "register one that uses its container's network: sudo runsc install --runtime runsc-bottle -- "
    "--network=host, and have the engine reload its settings"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """One runtime as the engine tells of it; ``shim`` is containerd's name of its kind, where it has one.

    What a shim's runtime is started with stands in a file of the engine's machine, so ``args`` is empty.
    """

    name: str
    program: str = ""
    args: tuple[str, ...] = ()
    shim: str = ""

    @property
    def is_gvisor(self) -> bool:
        """Tell whether containers get gVisor's kernel: by its program, whatever the runtime is called."""
        known_by = PurePosixPath(self.program).name or self.shim or self.name
        return _GVISOR in known_by

    @property
    def shares_network(self) -> bool:
        """Tell whether gVisor uses the sockets of its container's network namespace."""
        return _flag(self.args, "network") == "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The runtime for the agent's container: ``name`` is empty for the engine's own choice.

    ``note`` says what the engine lacks for gVisor though it has it; empty where there is nothing to say.
    """

    name: str = ""
    gvisor: Runtime | None = None
    note: str = ""


def choose(facts: EngineFacts, wanted: str) -> Choice:
    """Choose by the operator's word (``auto``, empty, or a name); raises ``UsageError`` where it cannot be.

    ``auto`` takes gVisor where a bottle can be joined to it, unless the engine remaps users or is rootless:
    not every runsc starts there. It never takes an ordinary runtime on an engine whose own choice is
    gVisor: that would be less than its operator decided on.
    """
    by_name = {runtime.name: runtime for runtime in facts.runtimes}
    if wanted not in {"", AUTO}:
        if wanted not in by_name:
            known = ", ".join(by_name) or "none"
            raise UsageError(
                f"docker.runtime in config.toml is {wanted}, which the engine does not have; it has: "
                f"{legible(known)}"
            )
        return _named(by_name[wanted], f"docker.runtime in config.toml is {wanted}")
    default = by_name.get(facts.default_runtime)
    if default is not None and default.is_gvisor and default.shares_network:
        return Choice(name=default.name, gvisor=default)
    found = [runtime for runtime in facts.runtimes if runtime.is_gvisor]
    usable = [runtime for runtime in found if runtime.shares_network]
    default_is_gvisor = default is not None and default.is_gvisor
    if usable and not default_is_gvisor and (facts.remaps_users or facts.rootless):
        return Choice(
            note="gVisor is not used: on an engine that remaps users or is rootless its containers may not "
            f"come up; to try, name it in config.toml: docker.runtime = {legible(usable[0].name)}"
        )
    if usable:
        return Choice(name=usable[0].name, gvisor=usable[0])
    if default is not None and default.is_gvisor:
        return _named(default, f"the engine's default runtime is {legible(default.name)}")
    # Podman names runtimes that it only knows of, and never what they are started with.
    if not found or facts.product == "Podman":
        return Choice()
    return Choice(
        note=f"gVisor is not used: the runtime {legible(found[0].name)} has a network stack of its own, "
        f"to which no sidecar can be joined; {_REGISTER}"
    )


def for_our_own(facts: EngineFacts) -> str:
    """Name the runtime of sidecar and doorkeeper; empty for the engine's own choice.

    They hand descriptors to each other over a socket in a volume, which gVisor's kernel does not do.
    """
    for runtime in facts.runtimes:
        if runtime.name == facts.default_runtime and runtime.is_gvisor:
            return ORDINARY
    return ""


def _named(runtime: Runtime, who_says: str) -> Choice:
    if not runtime.is_gvisor:
        return Choice(name=runtime.name)
    if not runtime.shares_network:
        raise UsageError(
            f"{who_says}, which is gVisor with a network stack of its own, to which no sidecar can be "
            f"joined; {_REGISTER}"
        )
    return Choice(name=runtime.name, gvisor=runtime)


def _flag(args: Sequence[str], name: str) -> str | None:
    """Give a flag's last value as Go's ``flag`` package reads it; None where the flag is not there."""
    value = None
    for index, arg in enumerate(args):
        flag, equals, text = arg.partition("=")
        if flag in {f"-{name}", f"--{name}"}:
            following = args[index + 1] if index + 1 < len(args) else ""
            value = text if equals else following if not following.startswith("-") else ""
    return value
