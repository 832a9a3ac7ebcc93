"""The agent's container: what it is made of, and how it lives and ends.

It has no network but loopback, no capability, no device, nothing of the host, and nothing in its settings
that is worth reading. Its first process belongs to an account of its own, so that the agent can neither end
it nor hold its input open; that input is the launcher's connection, and with it the container ends.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bot_bottle.agent_account import AGENT_HOME, AGENT_UID, AGENT_WORKSPACE
from bot_bottle.backend import inside
from bot_bottle.backend.docker import dialect, loopback, seccomp
from bot_bottle.backend.docker.engine import engine_errors
from bot_bottle.backend.docker.execs import Execs
from bot_bottle.backend.docker.labels import make_labels
from bot_bottle.backend.docker.placing import Placing
from bot_bottle.backend.docker.streams import Multiplexed
from bot_bottle.backend.docker.volumes import remove_containers
from bot_bottle.backend.limits import run_bytes, shared_memory_bytes, tmp_bytes
from bot_bottle.backend.util import AGENT_CA_DIR
from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker import APIClient

    from bot_bottle.backend.docker.engine import Engine
    from bot_bottle.backend.docker.facts import EngineFacts
    from bot_bottle.backend.limits import EffectiveLimits

HOSTNAME = "bottle"
#: The account of the container's first process; the agent is another one.
HOLDER_UID = 65533

_MIB = 1 << 20
#: The first process, the one that waits on its input, and the shells around the agent.
_OWN_PROCESSES = 4
#: Threads of gVisor's kernel and file server. A process inside is two of the machine's.
_GVISOR_THREADS = 256
_GVISOR_PER_PROCESS = 2
_FAILED = "the bottle's container could not be made"
_CAPABLE = "seccomp"
#: The output is attached too, though nothing comes of it: its end is the container's.
_STREAMS = ("stdin", "stdout", "stderr", "stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What one agent's container is made of; ``runtime`` is empty for the engine's own choice.

    ``gvisor`` says that it is gVisor's, whose kernel is a program in the same control group.
    """

    name: str
    identity: str
    image: str
    home_volume: str
    limits: EffectiveLimits
    runtime: str = ""
    gvisor: bool = False


# PID 1. Its input is held open by the launcher's connection: when that goes, however, the second shell
# meets its end, the first one ends with it, and the kernel ends everything else. `wait` also reaps orphans.
# SIGTERM is how an engine that is stopped tells it to end; the agent is another account and cannot send it.
_HOLD = "trap 'exit 0' TERM; exec 3<&0 </dev/null; while read -r word; do :; done <&3 & exec 3<&-; wait $!"


def container_options(
    api: APIClient, settings: AgentSettings, facts: EngineFacts, *, ipv6: bool = True, call_filter: str = ""
) -> dict[str, Any]:
    """Give what ``create_container`` takes. Nothing in it is a value of the agent's environment.

    ``call_filter`` is the value of ``seccomp=`` where it is not the profile itself (see :mod:`.dialect`).
    """
    from docker.types import LogConfig, Mount, Ulimit  # noqa: PLC0415 - the SDK is for this backend alone

    limits = settings.limits
    host_config = api.create_host_config(
        network_mode="none",
        dns=["127.0.0.1"],
        dns_search=["."],
        auto_remove=True,
        init=False,
        read_only=True,
        privileged=False,
        cap_drop=["ALL"],
        security_opt=_security(facts, call_filter or seccomp.profile()),
        ipc_mode="private",
        cgroupns="private",  # or the path of every control group above is readable inside
        sysctls=loopback.switches(ipv6=ipv6),
        runtime=settings.runtime or None,
        log_config=LogConfig(type="none"),
        mounts=[Mount(target=AGENT_HOME, source=settings.home_volume, type="volume")],
        tmpfs={
            place: dialect.tmpfs(f"rw,{runs},nosuid,nodev", size, facts, owner=owner)
            for place, runs, size, owner in (
                ("/tmp", "exec", tmp_bytes(limits.memory), None),  # noqa: S108 - inside
                ("/var/tmp", "exec", tmp_bytes(limits.memory) // 4, None),  # noqa: S108
                ("/run", "exec", run_bytes(limits.memory), AGENT_UID),
                (inside.OWN_DIR, "noexec", _MIB, 0),
                (AGENT_CA_DIR, "noexec", _MIB, 0),
            )
        },
        shm_size=shared_memory_bytes(limits.memory),
        mem_limit=limits.memory if facts.holds_memory else None,
        memswap_limit=limits.memory if facts.holds_memory else None,
        nano_cpus=round(limits.cpus * 1e9) if limits.cpus is not None and facts.holds_cpu else None,
        pids_limit=held_processes(settings, facts) or None,
        ulimits=[
            Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
            Ulimit(name="core", soft=0, hard=0),
        ],
    )
    return {
        "image": settings.image,
        "name": settings.name,
        "hostname": HOSTNAME,
        "entrypoint": ["/bin/sh", "-c", _HOLD],
        "command": [],
        "user": f"{HOLDER_UID}:{HOLDER_UID}",
        "working_dir": "/",
        "labels": make_labels("agent", settings.identity),
        "stdin_open": True,
        "tty": False,
        "healthcheck": {"test": ["NONE"]},
        # The client's own settings may hold a proxy's password, which the SDK would put into the environment.
        "use_config_proxy": False,
        "host_config": host_config,
    }


def held_processes(settings: AgentSettings, facts: EngineFacts) -> int:
    """Give the container's bound on processes, PID 1 and its ``cat`` included; 0 where there is none."""
    count = settings.limits.processes + _OWN_PROCESSES
    if settings.gvisor:
        count = count * _GVISOR_PER_PROCESS + _GVISOR_THREADS
    return count if facts.holds_pids else 0


def _security(facts: EngineFacts, call_filter: str) -> list[str]:
    options = ["no-new-privileges"]
    # Where the engine has no filter at all it would refuse the container; the preflight says so.
    return [*options, f"seccomp={call_filter}"] if _CAPABLE in facts.security else options


class AgentContainer:
    """One agent's container, created, started and prepared in this order; close it on every way out."""

    def __init__(self, engine: Engine, settings: AgentSettings) -> None:
        self.settings = settings
        self.id = ""
        self._engine = engine
        self._begun = False
        self._hold: Multiplexed | None = None
        self._placing: Placing | None = None
        self.execs = Execs(engine.api, "")

    def start(self) -> None:
        """Create the container and start it, held open by this process; raises ``LaunchError``."""
        try:
            self._start(ipv6=True)
        except LaunchError as error:
            if loopback.NO_IPV6 not in str(error):
                raise
            self.close()
            self._start(ipv6=False)

    def _start(self, *, ipv6: bool) -> None:
        api = self._engine.api
        with engine_errors(_FAILED):
            call_filter = dialect.seccomp_option(self._engine)
            options = container_options(
                api, self.settings, self._engine.facts, ipv6=ipv6, call_filter=call_filter
            )
            self._begun = True
            self.id = api.create_container(**options)["Id"]
            # Attached before the start: at no moment does it run without somebody holding it open.
            self._hold = Multiplexed(api.attach_socket(self.id, params=dict.fromkeys(_STREAMS, 1)))
            api.start(self.id)
        self.execs = Execs(api, self.id, processes=held_processes(self.settings, self._engine.facts))

    def place_env(self, env: Mapping[str, str], *, resumed: bool) -> None:
        """Write the agent's environment where only root can; :meth:`place_ca` is due before it runs."""
        self._placing = Placing(self.execs, env, first=dialect.root_script(self._engine.facts))
        self._placing.await_env()
        if resumed:
            code, words = self.execs.run_own(inside.OPEN_HOME, AGENT_HOME, AGENT_WORKSPACE)
            if code != 0:
                raise LaunchError(
                    f"the kept workspace of {self.settings.identity} is no folder any more: "
                    f"{words.decode('utf-8', 'replace')[-300:].strip() or AGENT_WORKSPACE}"
                )

    def place_ca(self, ca_pem: str) -> None:
        """Write the sidecar's CA where only root can, in place of every other; raises ``LaunchError``."""
        if self._placing is not None:
            self._placing.place_ca(ca_pem)

    def alive(self, patience: float = 0.0) -> bool:
        """Tell whether the container that was started still runs; one started again by hand is another.

        Up to ``patience`` seconds are given to one that is just about to end.
        """
        if self._hold is None:
            return False
        try:
            while self._hold.read(patience):
                pass  # what its first process may have to say is of no interest
        except TimeoutError:
            return True
        except (OSError, ValueError):
            return False
        return False

    def close(self) -> None:
        """End and remove the container; safe to call again. What cannot be removed is said on stderr."""
        hold, self._hold = self._hold, None
        if self._placing is not None:
            self._placing.close()
        if hold is not None:
            hold.close()
        if not self._begun:
            return
        try:
            with engine_errors("the bottle's container could not be removed from the engine"):
                # By its labels: an interrupted create_container never told its id.
                remove_containers(self._engine.api, "agent", self.settings.identity)
        except LaunchError as error:
            print(f"bot-bottle: {error}; try: bot-bottle cleanup", file=sys.stderr)
        self._begun = False
