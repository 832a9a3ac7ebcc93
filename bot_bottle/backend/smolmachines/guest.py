"""What runs as root inside a machine before the agent ever does, and what stands around its commands (pure).

All of it is text that goes in on a script's standard input: into no argv, no database, no disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from bot_bottle.agent_account import AGENT_HOME, AGENT_UID, AGENT_WORKSPACE
from bot_bottle.backend import inside
from bot_bottle.backend.limits import tmp_bytes
from bot_bottle.backend.smolmachines.furnishing import ProgramSteps, ShellSteps, furnish
from bot_bottle.backend.smolmachines.starter import starter_program
from bot_bottle.backend.transfer import UNPACK, quote
from bot_bottle.backend.util import (
    AGENT_CA_BUNDLE,
    AGENT_CA_PATH,
    AGENT_JAVA_TRUST,
    java_truststore,
)
from bot_bottle.egress.hosts import EGRESS_LOCAL_HOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bot_bottle.backend.limits import EffectiveLimits
    from bot_bottle.backend.smolmachines.furnishing import Steps
    from bot_bottle.egress.routes import EgressRoute

#: The one address there is for a machine. From TEST-NET-2 (RFC 5737), which is nobody's: even if a packet to
#: it ever got out, it would arrive nowhere.
SIDECAR_ADDRESS = "198.51.100.1"

AGENT = f"{AGENT_UID}:{AGENT_UID}"
HOSTNAME = "bottle"
ROOT = "0:0"
RUN = f"{inside.OWN_DIR}/run"
ON_TERMINAL = f"{inside.OWN_DIR}/terminal"
_START = f"{inside.OWN_DIR}/start"
_START_ON_TERMINAL = f"{inside.OWN_DIR}/start-on-terminal"
_CALLS = f"{inside.OWN_DIR}/call-"
_SHELL = "/bin/sh"
#: Beside that memory, which it mounts itself; it holds nothing of the launch, and takes itself away.
_FURNISHER = "/run/bot-bottle-furnish"

#: The shells around the agent's program, which count as its account's processes too.
_OWN_PROCESSES = 3

# What the engine puts into a command's environment; the agent has the plan's and nothing else.
_ENGINES_OWN = "HOME TERM LANG HOSTNAME"

# A shell knows the bound on processes as -u (bash, busybox) or as -p (dash).
_LIMITS = """\
limit() { if (ulimit "$1" "$3") 2>/dev/null; then ulimit "$1" "$3"; else ulimit "$2" "$3"; fi; }
limit -c -c 0 && limit -n -n @FILES@ && limit -u -p @PROCESSES@ || exit 125
unset -f limit
"""

# The call comes as the first line of input: this shell takes that line and not a byte more (POSIX, "read").
# The mark on the error stream tells where the client program's own words end.
_RUN = f"""\
IFS= read -r call || exit 125
eval "$(printf %b "$call")"
unset call
printf '\\036%s>' "$2" >&2
@LIMITS@unset {_ENGINES_OWN}
{inside.PIPED}"""

_ON_TERMINAL = f"""\
. "$1"
@LIMITS@unset {_ENGINES_OWN}
{inside.ON_TERMINAL}"""

# Every program that this starts costs its time in each launch, so the shell does what it can by itself.
_SET_UP = f"""\
set -eu
umask 022
echo {HOSTNAME} >/proc/sys/kernel/hostname
@FURNISH@printf %s @HOSTS@ >/etc/hosts
printf %s @CA@ >{AGENT_CA_BUNDLE}
printf %s @CA@ >{AGENT_CA_PATH}
printf %b @STORE@ >{AGENT_JAVA_TRUST}
umask 222
printf %s @ENV@ >{inside.ENV_FILE}
printf %s @RUN@ >{RUN}
printf %s @TERMINAL@ >{ON_TERMINAL}
umask 022
"""

# What an image has in the home already becomes the agent's too.
_OWN_HOME = f"""\
for one in {AGENT_HOME}/.[!.]* {AGENT_HOME}/* {AGENT_WORKSPACE}/.[!.]* {AGENT_WORKSPACE}/*; do
  if [ "$one" != {AGENT_WORKSPACE} ] && {{ [ -e "$one" ] || [ -L "$one" ]; }}; then
    chown -R {AGENT} {AGENT_HOME}; break
  fi
done
"""

# For a machine that programs can be made for (see :mod:`bot_bottle.backend.smolmachines.machine_code`).
_FURNISH = f"""\
[ -d /run ] || mkdir -m 755 /run
printf %b @FURNISHER@ >{_FURNISHER}
chmod 700 {_FURNISHER}
{_FURNISHER} || {{ echo "step $? of its folders and mounts failed" >&2; exit 125; }}
"""
_WITH_STARTER = f"""\
printf %b @START@ >{_START}
printf %b @STARTONTERMINAL@ >{_START_ON_TERMINAL}
"""
# The first command behind the starter shows that it works; it unpacks the agent's files where there are any.
_TRY_STARTER = f"{_START} /bin/true\n"
_UNPACK_BEHIND_STARTER = f"printf %b @ARCHIVE@ | {_START} {_SHELL} -c 'exec {UNPACK} -C {AGENT_HOME}'\n"

# For another, what the image brings has to do. A program that gains rights when it is started is of no use to
# an agent: where the image cannot forbid it to each process, no file may give any.
_WITHOUT_STARTER = """\
rights=- session=-
if setpriv --no-new-privs true 2>/dev/null; then rights=setpriv; else
  find / -xdev -type f -perm /6000 -exec chmod ug-s {} +
fi
if setsid true 2>/dev/null; then session=setsid; fi
echo "$rights $session"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """How a command begins: as ``user``, with these words before its shell."""

    user: str
    piped: tuple[str, ...]
    terminal: tuple[str, ...]


def set_up_script(
    *,
    env: Mapping[str, str],
    ca_pem: str,
    hosts: Iterable[str],
    limits: EffectiveLimits,
    fresh: bool,
    filter_program: bytes,
    archive: bytes = b"",
) -> str:
    """Give root's script for one start of a machine; what it prints :func:`starter` reads.

    ``hosts`` are the names that resolve to the sidecar. ``filter_program`` is the commands' seccomp filter,
    empty for an architecture without a starter. With a starter the agent's account unpacks the tar
    ``archive`` in its home. Raises ``UsageError`` for a variable's name that no shell takes.
    """
    bounds = _LIMITS.replace("@FILES@", str(limits.open_files)).replace(
        "@PROCESSES@", str(limits.processes + _OWN_PROCESSES)
    )
    values = {
        "HOSTS": quote(hosts_file(hosts)),
        "CA": quote(ca_pem),
        "STORE": _bytes(java_truststore(ca_pem)),
        "ENV": quote(inside.render_env(env).decode("utf-8", "surrogateescape")),
        "RUN": quote(_RUN.replace("@LIMITS@", bounds)),
        "TERMINAL": quote(_ON_TERMINAL.replace("@LIMITS@", bounds)),
        "ARCHIVE": _bytes(archive),
    }
    script = _SET_UP + (_account_script() + _OWN_HOME if fresh else "")
    if filter_program:
        furnisher = ProgramSteps()
        _furnish(furnisher, limits, fresh=fresh, programs=(_START, _START_ON_TERMINAL))
        furnisher.remove_itself(_FURNISHER)
        values["FURNISHER"] = _bytes(furnisher.executable())
        values["START"] = _bytes(starter_program(AGENT_UID, filter_program, terminal=False))
        values["STARTONTERMINAL"] = _bytes(starter_program(AGENT_UID, filter_program, terminal=True))
        script = script.replace("@FURNISH@", _FURNISH)
        script += _WITH_STARTER + (_UNPACK_BEHIND_STARTER if archive else _TRY_STARTER)
    else:
        steps = ShellSteps()
        _furnish(steps, limits, fresh=fresh, programs=())
        script = script.replace("@FURNISH@", steps.script()) + _WITHOUT_STARTER
    # In one pass: a value that looks like a place for one stays what it is.
    return re.sub("@([A-Z]+)@", lambda found: values[found[1]], script)


def _furnish(steps: Steps, limits: EffectiveLimits, *, fresh: bool, programs: Sequence[str]) -> None:
    tmp = str(tmp_bytes(limits.memory))
    furnish(steps, own=inside.OWN_DIR, runs=inside.RUNS_DIR, tmp=tmp, programs=programs, fresh=fresh)


def hosts_of(routes: Iterable[EgressRoute]) -> tuple[str, ...]:
    """List the names that resolve inside: egress's own and every route's that is one name, no pattern."""
    names = dict.fromkeys(route.host for route in routes if "*" not in route.host and not _is_address(route))
    return (EGRESS_LOCAL_HOST, *names)


def hosts_file(names: Iterable[str]) -> str:
    """Write ``/etc/hosts``: the machine itself, and each of ``names`` at the sidecar's address."""
    own = f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback\n"
    return own + "".join(f"{SIDECAR_ADDRESS} {name}\n" for name in names)


def starter(told: str, *, ours: bool) -> Starter:
    """Say how commands begin, from what the set-up script printed; ``ours`` where it placed our starter.

    A session of its own lets all that a command started be found; on a terminal the engine makes one.
    """
    if ours:
        return Starter(user=ROOT, piped=(_START,), terminal=(_START_ON_TERMINAL,))
    found = told.split()[-2:]
    rights = ("setpriv", "--no-new-privs") if "setpriv" in found else ()
    session = ("setsid",) if "setsid" in found else ()
    return Starter(user=AGENT, piped=(*session, *rights), terminal=rights)


def call_line(slot: str, mark: str, argv: Sequence[str]) -> bytes:
    """Write what :data:`RUN` is to run as one line: ``printf %b`` gives the words back (POSIX)."""
    words = call_words((slot, mark, *argv)).encode("utf-8", "surrogateescape")
    return inside.escaped(words) + b"\n"


def call_words(argv: Sequence[str]) -> str:
    """Write ``argv`` as a shell's positional parameters."""
    return f"set -- {' '.join(quote(word) for word in argv)}"


def write_call_script(slot: str) -> tuple[str, str]:
    """Give the script that puts its standard input where :data:`ON_TERMINAL` finds it, and that place."""
    place = f"{_CALLS}{slot}"
    return f"umask 022; cat >{place}", place


OPEN_HOME_ARGS = (AGENT_HOME, AGENT_WORKSPACE)


def _bytes(data: bytes) -> str:
    """Write any bytes as an argument of ``printf %b``."""
    return quote(inside.escaped(data).decode("ascii"))


def _account_script() -> str:
    return resources.files("bot_bottle.backend").joinpath("account.sh").read_text("utf-8")


def _is_address(route: EgressRoute) -> bool:
    from bot_bottle.egress.hosts import is_ip_literal  # noqa: PLC0415 - egress only where routes are read

    return is_ip_literal(route.host)
