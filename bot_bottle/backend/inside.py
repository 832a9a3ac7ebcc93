"""The shell scripts that run inside a bottle made from an image, around what it is asked to run.

They need a POSIX shell, ``mkdir``, ``chmod`` and ``cat``, so that nearly any image will do. The agent's
environment lies in a file that root wrote before the agent first ran: in no engine's settings, in no argv, on
no disk.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from bot_bottle.backend.transfer import quote
from bot_bottle.errors import UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Memory of the bottle's own that root fills once; the agent may write to its last folder alone.
OWN_DIR = "/run/bot-bottle"
ENV_FILE = f"{OWN_DIR}/env"
RUNS_DIR = f"{OWN_DIR}/exec"

#: A script's text travels in this variable: an engine shows and logs argv, but not a command's environment.
SCRIPT_VARIABLE = "BOT_BOTTLE_SCRIPT"

#: What root's script says once the environment is in its place.
PLACED = "placed"

#: What a command's first process leaves in its slot where it could not become the program.
FAILED = "failed"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Written by root, from standard input: a mark, the environment up to it, then Java's truststore in a line and
# the certificate, which may come much later. Says in between that the environment is there.
_PLACE = f"""\
set -e; umask 022
mkdir -m 1777 {RUNS_DIR}
IFS= read -r mark
while IFS= read -r line; do [ "$line" = "$mark" ] && break; printf '%s\\n' "$line"; done >{ENV_FILE}
chmod 444 {ENV_FILE}
echo {PLACED}
IFS= read -r store
certificate=$(cat)
[ "$certificate" ]
printf %b "$store" >@STORE@
for name in @BUNDLE@ @CERTIFICATE@; do printf '%s\\n' "$certificate" >"$name"; done
"""

# A resumed bottle's agent may have closed or removed its own folders; only it can open them again.
OPEN_HOME = """\
chmod u+rwx "$1" && mkdir -p "$2" && [ -d "$2" ] && [ ! -L "$2" ] && chmod u+rwx "$2"
"""

# Arguments: slot, end mark, program... The inner shell becomes the program; the outer one tells its end on
# both streams, since a process left in the background may hold them open for long. What a shell says of a
# killed child goes nowhere.
PIPED = f"""\
if [ "${{{SCRIPT_VARIABLE}+x}}" ]; then set -- "$1" "$2" /bin/sh -c "${SCRIPT_VARIABLE}"; fi
exec 3>&2 2>/dev/null
trap : PIPE
echo $$ >{RUNS_DIR}/"$1"
(
trap - PIPE
trap "echo {FAILED} \\$? >{RUNS_DIR}/$1" EXIT
. {ENV_FILE}
unset HOSTNAME {SCRIPT_VARIABLE}
shift 2
command -v "$1" >/dev/null || exit 127
exec "$@" 2>&3 3>&-
)
code=$?
printf '\\036%s%s;' "$2" $code
printf '\\036%s%s;' "$2" $code >&3
"""

# Arguments: slot, program... On a terminal the shell becomes the program, which then leads the session.
ON_TERMINAL = f"""\
echo $$ >{RUNS_DIR}/"$1"
trap "echo {FAILED} \\$? >{RUNS_DIR}/$1" EXIT
. {ENV_FILE}
unset HOSTNAME
shift
command -v "$1" >/dev/null 2>&1 || exit 127
exec "$@"
"""

# Argument: slot. Tells what its first process left there.
LOOK = f'read -r word code <{RUNS_DIR}/"$1" && echo "$word $code"'

# Arguments: slot, signal. KILL: to every process of the session that the slot's first process leads, until a
# look finds none. PIPE: once, to all but the leader, which tells the end. Session 0 is no session: it is how
# processes look whose own lies outside this PID namespace, the kernel's among them.
SIGNAL = f"""\
read -r leader rest <{RUNS_DIR}/"$1" || exit 3
case $leader in ''|0*|1|*[!0-9]*) exit 3;; esac
kind=$2 round=0
while [ $round -lt 50 ]; do
  round=$((round+1)) found=
  for stat in /proc/[0-9]*/stat; do
    line=
    while IFS= read -r part; do line=$line$part; done <"$stat" || continue
    set -- ${{line##*) }}
    [ "$4" = "$leader" ] && [ "$1" != Z ] || continue
    pid=${{stat#/proc/}} pid=${{pid%/stat}}
    [ "$kind" = PIPE ] && [ "$pid" = "$leader" ] && continue
    kill -"$kind" "$pid" && found=1
  done
  [ "$found" ] && [ "$kind" = KILL ] || exit 0
done
exit 4
"""


def marked(script: str) -> str:
    """Give one of our own scripts so that it takes an end mark before its arguments and tells its end."""
    return f"""\
mark=$1; shift
(
{script}
)
code=$?
printf '\\036%s%s;' "$mark" $code
printf '\\036%s%s;' "$mark" $code >&2
"""


def place_script(bundle: str, certificate: str, store: str) -> str:
    """Give root's script that reads a line with a mark, the environment, that line again, and the CA.

    Of the CA comes first a truststore for Java as a line of :func:`escaped`, then its certificate.
    """
    places = {"BUNDLE": bundle, "CERTIFICATE": certificate, "STORE": store}
    return re.sub("@([A-Z]+)@", lambda found: quote(places[found[1]]), _PLACE)


def escaped(data: bytes) -> bytes:
    """Write any bytes as text without a line's end that ``printf %b`` gives back (POSIX).

    A zero's number needs no digit where none follows it: programs and archives are zeros for the most part.
    """
    return _SHORT_ZERO.sub(rb"\\0", data.decode("latin-1").translate(_ESCAPED).encode("ascii"))


_ESCAPED = {byte: f"\\0{byte:03o}" for byte in range(256) if not 0x20 <= byte < 0x7F or byte == 0x5C}
_SHORT_ZERO = re.compile(rb"\\0000(?![0-7])")


def render_env(env: Mapping[str, str]) -> bytes:
    """Write an environment as shell text; the image's own search path follows ours.

    Raises ``UsageError`` for a name that no shell takes.
    """
    lines = []
    for name, value in env.items():
        if not _NAME.fullmatch(name):
            raise UsageError(f"env {legible(name)!r}: a variable's name holds letters, digits and _ only")
        rest = '"${PATH:+:$PATH}"' if name == "PATH" else ""
        lines.append(f"export {name}={quote(value)}{rest}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def new_mark() -> str:
    """Draw the text that marks the end of one command's output."""
    return secrets.token_hex(16)


class MarkedOutput:
    """Passes on one stream of a command up to its end mark; ``code`` is the exit code once it was read."""

    def __init__(self, mark: str) -> None:
        self._mark = b"\x1e" + mark.encode()
        self._held = b""
        self._marked = False
        self.code: int | None = None

    def feed(self, data: bytes) -> bytes:
        """Give what of ``data``, and of what was held back before, is the command's own output."""
        if self.code is not None:
            return b""
        data = self._held + data
        if not self._marked:
            own, found, rest = data.partition(self._mark)
            if not found:
                start = self._possible_mark(data)
                self._held = data[start:]
                return data[:start]
            self._marked = True
        else:
            own, rest = b"", data
        self._held = rest
        number, found, _ = rest.partition(b";")
        if found:
            self.code = int(number) & 0xFF if number.isdigit() else 0xFF
            self._held = b""
        return own

    def rest(self) -> bytes:
        """Give what was held back where no mark ever came."""
        rest, self._held = self._held, b""
        return rest

    def _possible_mark(self, data: bytes) -> int:
        """Find where a mark may have begun at the end of ``data``."""
        start = data.find(self._mark[:1], max(0, len(data) - len(self._mark) + 1))
        while start >= 0 and not self._mark.startswith(data[start:]):
            start = data.find(self._mark[:1], start + 1)
        return len(data) if start < 0 else start
