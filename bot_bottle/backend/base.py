"""The contract between what is shared and what isolates.

A backend is a folder below this one and a line in ``registry.py``. It implements :class:`BottleBackend`
and yields a :class:`Bottle`; all that is the same for every backend lives above it, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

from bot_bottle.agent_account import AGENT_USER
from bot_bottle.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bot_bottle.attach.terminal import OperatorSide
    from bot_bottle.backend.plan import BottlePlan, BottleSpec, LimitStatus
    from bot_bottle.manifest.model import ManifestBottle
    from bot_bottle.operator_config import OperatorConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """What a script inside the bottle did. ``returncode`` is 128 + N when signal N ended it."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Bottle(ABC):
    """A running bottle. All methods raise ``LaunchError`` once the bottle is gone.

    ``provisioned`` tells whether it came up with the provider's folders and files in its home;
    ``user_space_kernel`` whether its system calls go to a kernel in user space (gVisor), where no filter of
    ours has a part, as far as who launched it knows.
    """

    name: str
    provisioned: bool = False
    user_space_kernel: bool = False

    @abstractmethod
    def agent_argv(self, argv: Sequence[str], *, tty: bool = True) -> list[str]:
        """Give the argv that runs ``argv`` as the agent, as this backend runs it (for display)."""

    @abstractmethod
    def exec_agent(self, argv: Sequence[str], *, tty: bool = True, side: OperatorSide | None = None) -> int:
        """Run ``argv`` as the agent in the workspace and give its exit code (128 + N for signal N).

        With ``tty`` the operator's terminal is attached through a pseudo-terminal made inside the bottle
        (size, resize, Ctrl-C pass through); without, stdin, stdout and stderr are pumped through pipes,
        so the agent never holds one of the operator's own descriptors.

        With ``side`` nothing of this process's own streams is used: ``tty`` attaches that in place of the
        terminal, and without ``tty`` it is shown both outputs, and the agent has nothing to read.
        """

    @abstractmethod
    def exec(
        self, script: str, *, user: str = AGENT_USER, stdin: bytes = b"", timeout: float | None = None
    ) -> ExecResult:
        """Run a POSIX shell script inside, passed so that it crosses no argv outside the bottle.

        ``stdin`` is the script's standard input. Raises ``TimeoutError`` (the script is killed) and
        ``UsageError`` for a user this backend does not have.
        """

    @abstractmethod
    def exec_stream(self, script: str, *, stdin: BinaryIO | None, stdout: BinaryIO | None) -> ExecResult:
        """Run a POSIX shell script inside with its standard streams pumped from and to binary files.

        None means empty input, or output collected into the result.
        """

    def cp_in(self, host: Path, guest: str) -> None:
        """Copy a file or folder of the host to ``guest`` (absolute), owned by the agent."""
        from bot_bottle.backend import transfer  # noqa: PLC0415 - brings tarfile, which a manifest never needs

        transfer.cp_in(self, host, guest)

    def cp_out(self, guest: str, host: Path) -> None:
        """Copy ``guest`` out to ``host``; links out of the tree, devices and set-id bits are dropped."""
        from bot_bottle.backend import transfer  # noqa: PLC0415 - as above

        transfer.cp_out(self, guest, host)

    def await_ready(self) -> None:  # noqa: B027 - not abstract: see below
        """Wait until the sidecar serves the bottle and the bottle trusts it; safe to call again.

        Until then files can be placed, and nothing of the agent's may run. Most backends yield nothing before
        that, so that there is nothing to wait for.
        """

    @abstractmethod
    def close(self) -> None:
        """End everything in the bottle; safe to call again."""


ProbeLevel = Literal["ok", "degraded", "unavailable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """Whether this machine can run a backend, found by trying, with the one command that would mend it."""

    backend: str
    level: ProbeLevel
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something of ours that no running launch owns. ``describe`` is shown before it is removed."""

    backend: str
    identity: str
    kind: str
    describe: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One thing that launches share and that was made ahead, such as an image.

    ``what`` says what it is for, ``name`` what its engine calls it, ``size`` is in bytes, ``fresh`` tells
    whether it was made just now. ``bottles`` are those that it serves, none where it serves all.
    """

    what: str
    name: str
    size: int
    fresh: bool
    bottles: tuple[str, ...] = ()


class BottleBackend(ABC):
    """What isolates. ``sidecar_address`` is where a bottle's programs find its sidecar.

    ``accounts`` says in a sentence who runs inside, and that nobody there is root to the agent's use;
    ``not_prevented`` says, a sentence each, what this boundary lets through that another's would not.
    ``own_kernel`` tells whether each bottle has one, and with it namespaces and system files of its own.
    """

    name: str
    own_kernel: bool = False
    sidecar_address: str = "127.0.0.1"
    accounts: str = ""
    not_prevented: tuple[str, ...] = ()

    @property
    @abstractmethod
    def boundary(self) -> str:
        """Say in a few words what stands between agent and host (``..., shared kernel``)."""

    def host_address(self) -> str:
        """Give the address at which a bottle's sidecar reaches servers of this machine (the demo's).

        Raises ``UnavailableError`` where the sidecar runs on another machine.
        """
        return "127.0.0.1"

    def demo_settings(self) -> str:
        """Give the lines of config.toml that let the demo use what the operator chose or has already."""
        return ""

    @abstractmethod
    def probe(self) -> ProbeResult:
        """Find out, by really trying, whether bottles can be made here; leaves nothing behind."""

    def begin_ahead(self) -> None:  # noqa: B027 - not abstract: most backends have nothing to begin
        """Begin what a launch takes whatever its plan will be, while that is still being made.

        Nothing of it knows a secret, is to be seen by anybody else, or outlives this process. What
        :meth:`launch` does not take over is ended by :meth:`end_ahead`. To be called from the main thread.
        Raises nothing: what cannot be begun is said by the launch.
        """

    def end_ahead(self) -> None:  # noqa: B027 - as above
        """End what :meth:`begin_ahead` began, unless a launch took it over; safe to call again."""

    @abstractmethod
    def limits(self, bottle: ManifestBottle) -> tuple[LimitStatus, ...]:
        """Say which limits hold for ``bottle`` on this machine."""

    def prepare(
        self,
        spec: BottleSpec,
        config: OperatorConfig | None = None,
        *,
        ask: Callable[[str, str], str] | None = None,
    ) -> BottlePlan:
        """Decide a launch in full and claim its state folder; nothing is started.

        See :func:`bot_bottle.backend.prepare.prepare`.
        """
        from bot_bottle.backend.prepare import prepare  # noqa: PLC0415 - prepare imports this module

        return prepare(spec, self, config, ask=ask)

    @abstractmethod
    def check(self, plan: BottlePlan) -> None:
        """Refuse, before anything starts, a plan this machine cannot launch.

        Raises ``UnavailableError`` or ``UsageError``; a provider's program that is not found is such a case.
        """

    def build(self, plan: BottlePlan) -> None:
        """Make what launches of this kind share and what takes its time (images), with progress on stderr.

        Called before anything is held for the launch; what is there already is not made again. Raises
        ``UnavailableError``, ``UsageError`` or ``LaunchError``.
        """
        del plan

    def build_ahead(
        self, bottles: Sequence[ManifestBottle], config: OperatorConfig, *, refresh: bool = False
    ) -> tuple[Prepared, ...]:
        """Make now what :meth:`build` would make for these bottles, so that their launches need not wait.

        ``refresh`` makes it again from the newest bases. Gives what is ready, nothing where this backend
        makes nothing ahead. Raises as :meth:`build`.
        """
        del bottles, config, refresh
        return ()

    def save_image(
        self, bottle: ManifestBottle, folder: Path, *, state_dir: Path | None = None, refresh: bool = False
    ) -> Path:
        """Build the image of a bottle's agent and save it in ``folder``, for backends that build none.

        Gives the archive, in the form of ``docker save``, named after its content: what is there already is
        not saved again. ``state_dir`` may hold a Dockerfile of the bottle's own. Raises as :meth:`build`, and
        ``UnavailableError`` where this backend builds none.
        """
        del bottle, folder, state_dir, refresh
        raise UnavailableError(f"the backend {self.name} builds no images")

    @abstractmethod
    def launch(self, plan: BottlePlan) -> AbstractContextManager[Bottle]:
        """Bring up the sidecar, then the isolation; yield the bottle; take everything down on every exit.

        Raises ``LaunchError`` or ``UnavailableError`` with nothing left running. Nothing is ever run
        unsandboxed.
        """

    def dockerfile_of(self, bottle: ManifestBottle, state_dir: Path) -> str:
        """Give the Dockerfile that the bottle's agent image is built from; ``state_dir`` may hold its own.

        Raises ``UsageError`` where it cannot be read, ``UnavailableError`` where no image is built.
        """
        del bottle, state_dir
        raise UnavailableError(
            f"a {self.name} bottle has no image of its own: it runs this machine's programs"
        )

    def dockerfile_notes(self, text: str, in_force: str) -> tuple[str, ...]:
        """Say what a human should weigh before an agent's Dockerfile takes the place of the one ``in_force``.

        Raises ``UsageError`` for what such a Dockerfile may never do.
        """
        del text, in_force
        return ()

    @abstractmethod
    def bottle_of(self, identity: str) -> Bottle:
        """Give the handle of a bottle that another process runs.

        It can be closed, which ends the session and keeps its work; what needs what the launcher alone holds
        raises ``LaunchError``. Nothing is asked or started.
        """

    def freeze(self, identity: str, launcher: int) -> bool:
        """Hold all processes in a running bottle still; False where this backend cannot, or not all of them.

        ``launcher`` is the process that holds the bottle.
        """
        del identity, launcher
        return False

    def thaw(self, identity: str, launcher: int) -> None:
        """Let what :meth:`freeze` holds go on; no error where nothing is held."""
        del identity, launcher

    def complete_record(self, identity: str) -> None:
        """Have all of a bottle's record in the host's log, before anything else is written there.

        The caller holds the identity's lock. Raises ``UnavailableError`` or ``LaunchError`` where some of it
        is elsewhere and cannot be brought home now.
        """
        del identity

    def forget(self, identity: str) -> None:
        """Remove what this backend itself keeps of a bottle besides its state folder; twice is no error.

        Called only where no launcher holds the bottle and before its state folder is removed. Raises
        ``UnavailableError`` or ``LaunchError`` where it cannot, and the state then stays.
        """
        del identity

    def kept_at(self, identity: str) -> str:
        """Say where a kept bottle's workspace lies, for the operator to read."""
        from bot_bottle.bottle_state import bottle_state_dir  # noqa: PLC0415 - for this sentence alone

        return str(bottle_state_dir(identity) / "workspace")

    def open_workspace(self, identity: str) -> AbstractContextManager[Path | BinaryIO]:
        """Let a workspace be read: a folder of this machine, or a tar archive whose top is ``workspace``.

        What is in either was written by a stranger. Raises ``UnavailableError`` with what to do where it
        cannot be read now, ``LaunchError`` where it is gone.
        """
        from contextlib import nullcontext  # noqa: PLC0415 - as above

        from bot_bottle.bottle_state import bottle_state_dir  # noqa: PLC0415

        return nullcontext(bottle_state_dir(identity) / "workspace")

    @abstractmethod
    def leftovers(self) -> tuple[Leftover, ...]:
        """List what dead launches left (processes, cgroups, containers), this installation's only."""

    @abstractmethod
    def remove(self, leftover: Leftover) -> None:
        """Remove one leftover; removing it twice is no error."""
