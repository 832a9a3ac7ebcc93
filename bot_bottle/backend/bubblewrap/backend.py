"""Bottles out of Linux namespaces and a seccomp filter, made by bubblewrap."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import bottle_state, paths
from bot_bottle.backend import seccomp
from bot_bottle.backend.base import BottleBackend, Leftover, ProbeResult
from bot_bottle.backend.bubblewrap import bwrap, freezing, layout, limits, netns, probe
from bot_bottle.backend.bubblewrap.bottle import BubblewrapBottle
from bot_bottle.backend.bubblewrap.cgroup import (
    Cgroup,
    CgroupPlace,
    find_place,
    leftover_folders,
    make_cgroup,
    remove_folder,
)
from bot_bottle.backend.bubblewrap.folders import PROBE_ACCOUNT, account_for, prepare_folders
from bot_bottle.backend.bubblewrap.program import find_program
from bot_bottle.backend.bubblewrap.sandbox import Sandbox, SandboxRequest, start_sandbox
from bot_bottle.backend.elsewhere import held_elsewhere
from bot_bottle.backend.host_sidecar import HostSidecar
from bot_bottle.backend.util import sidecar_config, write_trust
from bot_bottle.control_client import control_listener
from bot_bottle.errors import LaunchError, UnavailableError
from bot_bottle.sidecar.listeners import close_listeners

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot_bottle.backend.bubblewrap.layout import Op
    from bot_bottle.backend.limits import EffectiveLimits
    from bot_bottle.backend.plan import BottlePlan, LimitStatus
    from bot_bottle.manifest.model import ManifestBottle
    from bot_bottle.sidecar.listeners import Listeners

NAME = "bubblewrap"
_CGROUP = "cgroup"
#: What the probe's sandbox runs: enough to need everything a bottle needs of the kernel.
_PROBE = ("/bin/sh", "-c", ":")
#: From here on the kernel counts a user's processes in each user namespace by itself.
_PROCESSES_PER_NAMESPACE = (5, 14)


class BubblewrapBackend(BottleBackend):
    """The default backend: no daemon, no root, no image."""

    name = NAME
    accounts = (
        "No root inside: one account, agent (uid 1000), without capabilities; to this machine it is the "
        "operator's, or for root an account of that bottle's own."
    )
    not_prevented = ("The kernel is shared: an exploit within what the filter permits gets out.",)
    boundary = "Linux namespaces and seccomp, shared kernel"

    def __init__(self) -> None:
        self._sidecar = HostSidecar()

    def begin_ahead(self) -> None:
        """Have a sidecar load what it is made of; see :class:`BottleBackend`."""
        self._sidecar.begin_ahead()

    def end_ahead(self) -> None:
        """End a sidecar that was never told anything; see :class:`BottleBackend`."""
        self._sidecar.end_ahead()

    def probe(self) -> ProbeResult:
        """Make a bare sandbox and let it go; see :class:`BottleBackend`."""
        try:
            programs = bwrap.candidates()
            program = seccomp.filter_program(paths.cache_dir())
        except UnavailableError as error:
            detail, _, remedy = str(error).partition("; install it with: ")
            return ProbeResult(backend=NAME, level="unavailable", detail=detail, remedy=remedy)
        account = PROBE_ACCOUNT if os.geteuid() == 0 else None
        try:
            sandbox, listeners, used = _start(
                programs, _probe_ops(), program, account=account, command=_PROBE
            )
        except LaunchError as error:
            detail, remedy = probe.explain(str(error), programs[0].path, probe.look_at_machine())
            return ProbeResult(backend=NAME, level="unavailable", detail=detail, remedy=remedy)
        try:
            sandbox.release()
            sandbox.await_end()
        except LaunchError as error:
            detail, remedy = probe.explain(str(error), used.path, probe.look_at_machine())
            return ProbeResult(backend=NAME, level="unavailable", detail=detail, remedy=remedy)
        finally:
            close_listeners(listeners)
            sandbox.stop()
        place = find_place()
        unheld = [name for name in ("memory", "cpu") if not place.can(name)]
        if unheld:
            reason = place.reason or "no controller"
            detail = f"works ({used.origin} bwrap); not bounded here: {' and '.join(unheld)} ({reason})"
            return ProbeResult(backend=NAME, level="degraded", detail=detail)
        return ProbeResult(backend=NAME, level="ok", detail=f"works ({used.origin} bwrap)")

    def limits(self, bottle: ManifestBottle) -> tuple[LimitStatus, ...]:
        """Say which limits hold for ``bottle`` here."""
        statuses = limits.limit_statuses(limits.limits_here(bottle.limits), find_place())
        if _rlimit_counts_namespace() or find_place().can("pids"):
            return statuses
        reason = "this kernel (before 5.14) would count all your processes, not the bottle's"
        return tuple(
            replace(one, holds=False, how=reason) if one.name == "processes" else one for one in statuses
        )

    def check(self, plan: BottlePlan) -> None:
        """Refuse a plan whose program is not on this machine, or for which there is no bubblewrap."""
        bwrap.candidates()
        program = find_program(plan.provision.program, os.environ.get("PATH", os.defpath))
        if os.geteuid() == 0:
            _require_open(program)

    def bottle_of(self, identity: str) -> BubblewrapBottle:
        """Give the handle of a bottle that another process runs; see :class:`BottleBackend`."""
        return BubblewrapBottle(identity, held_elsewhere(identity), {}, ())

    @contextlib.contextmanager
    def launch(self, plan: BottlePlan) -> Iterator[BubblewrapBottle]:
        """Bring up sidecar and sandbox side by side, join them, and take both down on every way out."""
        with contextlib.ExitStack() as stack:
            sidecar = self._sidecar.start(sidecar_config(plan))
            stack.callback(sidecar.close)
            account = account_for(plan.state_dir) if os.geteuid() == 0 else None
            home, workspace, trust = prepare_folders(plan.state_dir, account)
            bounds = limits.limits_here(plan.bottle.limits)
            program = find_program(plan.provision.program, os.environ.get("PATH", os.defpath))
            files = layout.BottleFiles(home=home, workspace=workspace, trust=trust, memory=bounds.memory)
            ops = layout.bottle_ops(files, program, _init_source())
            cgroup = _make_cgroup(find_place(), plan.identity, bounds)
            stack.callback(cgroup.remove)
            sandbox, listeners, used = _start_or_explain(
                ops, seccomp.filter_program(paths.cache_dir()), account=account, bounds=bounds, cgroup=cgroup
            )
            stack.callback(sandbox.stop)
            try:
                if account is None and _rlimit_counts_namespace():
                    _limit_processes(sandbox.pid, bounds)
                sandbox.release()
                write_trust(plan.state_dir, sidecar.ca_pem)
                with stack.enter_context(control_listener(plan.state_dir)) as control:
                    sidecar.give_listeners((*listeners, ("control", control)))
            finally:
                close_listeners(listeners)
            sandbox.await_ready()
            env = {**dict(program.env), **plan.guest_env}
            shown = (used.path, *bwrap.isolation_args(), *bwrap.render(ops, str, lambda _data: -1))
            bottle = BubblewrapBottle(plan.identity, sandbox, env, shown)
            stack.callback(bottle.close)
            yield bottle

    def freeze(self, identity: str, launcher: int) -> bool:
        """Stop every process of the sandbox."""
        del identity
        return freezing.freeze(launcher)

    def thaw(self, identity: str, launcher: int) -> None:
        """Let every process of the sandbox go on."""
        del identity
        freezing.thaw(launcher)

    def leftovers(self) -> tuple[Leftover, ...]:
        """List control groups of launches that are gone; nothing else of a bottle outlives its launcher.

        Only of launches that this installation made: its record of each outlives everything else, and the
        group of a launch under another ``BOT_BOTTLE_HOME`` may be about to be used.
        """
        return tuple(
            Leftover(
                backend=NAME,
                identity=identity,
                kind=_CGROUP,
                describe=f"empty control group {', '.join(folders)}",
            )
            for identity, folders in sorted(leftover_folders().items())
            if bottle_state.IDENTITY_PATTERN.fullmatch(identity)
            and paths.audit_path(identity).exists()
            and not bottle_state.is_running(identity)
        )

    def remove(self, leftover: Leftover) -> None:
        """Remove one leftover; removing it twice is no error."""
        for folder in leftover_folders().get(leftover.identity, ()):
            remove_folder(folder)


def _start_or_explain(
    ops: Sequence[Op],
    program: bytes,
    *,
    account: int | None,
    bounds: EffectiveLimits,
    cgroup: Cgroup,
) -> tuple[Sandbox, Listeners, bwrap.Bwrap]:
    """Start a sandbox; raises ``UnavailableError`` with the sentence that ``doctor`` prints."""
    programs = bwrap.candidates()
    try:
        return _start(programs, ops, program, account=account, bounds=bounds, cgroup=cgroup)
    except LaunchError as error:
        detail, remedy = probe.explain(str(error), programs[0].path, probe.look_at_machine())
        raise UnavailableError(f"{detail}; try: {remedy}" if remedy else detail) from error


def _start(
    programs: Sequence[bwrap.Bwrap],
    ops: Sequence[Op],
    program: bytes,
    *,
    account: int | None = None,
    bounds: EffectiveLimits | None = None,
    cgroup: Cgroup | None = None,
    command: tuple[str, ...] = (),
) -> tuple[Sandbox, Listeners, bwrap.Bwrap]:
    """Start with the first bubblewrap that works and open the sidecar's sockets; the bottle is still blocked.

    Raises the first one's ``LaunchError`` where none does.
    """
    failure: LaunchError | None = None
    rlimits = () if bounds is None else limits.rlimits(bounds)
    if account is not None and bounds is not None:
        # The account is the bottle's alone, so counting may begin at once.
        rlimits = (*rlimits, limits.process_rlimit(bounds))
    for candidate in programs:
        request = SandboxRequest(
            bwrap=candidate,
            ops=tuple(ops),
            seccomp=program,
            python=layout.python_path(),
            account=account,
            rlimits=rlimits,
            cgroup_procs=cgroup.procs if cgroup else (),
            enter_cgroup=cgroup.enter if cgroup else None,
            command=command,
        )
        try:
            sandbox = start_sandbox(request)
        except LaunchError as error:
            failure = failure or error
            continue
        try:
            return sandbox, netns.open_listeners(sandbox.pid), candidate
        except LaunchError as error:
            failure = failure or LaunchError(sandbox.words() or str(error))
            sandbox.stop()
        except BaseException:
            sandbox.stop()
            raise
    raise failure or LaunchError(bwrap.MISSING)


def _probe_ops() -> tuple[Op, ...]:
    return (*layout.system_ops(), layout.Raw(args=("--remount-ro", "/")))


def _make_cgroup(place: CgroupPlace, identity: str, bounds: EffectiveLimits) -> Cgroup:
    try:
        return make_cgroup(place, identity, limits.for_cgroup(bounds))
    except OSError as error:
        raise LaunchError(
            f"the bottle's control group could not be made: {error.filename}: {error.strerror}"
        ) from error


def _limit_processes(pid: int, bounds: EffectiveLimits) -> None:
    """Bound the number of processes from outside, when the bottle's own user namespace does the counting."""
    kind, value = limits.process_rlimit(bounds)
    hard = resource.prlimit(pid, kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(pid, kind, (value, value))


def _rlimit_counts_namespace() -> bool:
    match = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return os.geteuid() == 0 or (
        match is not None and (int(match[1]), int(match[2])) >= _PROCESSES_PER_NAMESPACE
    )


def _require_open(program: layout.ProgramFiles) -> None:
    """Root's bottles run as an account without rights: what they are to run must be open to everybody."""
    sources = [path for path, _dest in program.binds]
    sources += [op.source for op in layout.python_ops() if isinstance(op, layout.Bind)]
    for path in sources:
        mode = os.stat(path).st_mode
        needed = 0o005 if stat.S_ISDIR(mode) else 0o004
        if mode & needed != needed:
            raise UnavailableError(
                f"{path} is closed to ordinary users, and root's bottles run as one; "
                f"open it with: chmod -R o+rX {path}"
            )


def _init_source() -> bytes:
    return Path(__file__).with_name("init.py").read_bytes()
