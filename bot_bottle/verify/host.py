"""E3, E4, F4, H4, A13: what comes back to the host, what decides the next launch, and what is on record."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.audit_reading import verify
from bot_bottle.errors import BotBottleError
from bot_bottle.manifest.model import Manifest
from bot_bottle.verify import inside
from bot_bottle.verify.case import Case, Finding, broken, held, new_mark, not_run
from bot_bottle.verify.processes import own_sidecars
from bot_bottle.verify.stage import ALLOWED, FORBIDDEN

if TYPE_CHECKING:
    from bot_bottle.verify.stage import Stage

_PLANT = """
set -e; cd ~/workspace
mkdir -p planted/.bot-bottle/bottles planted/.bot-bottle/agents
printf -- '---\\n%s\\n%s\\n---\\n' 'agent_provider: {template: command, argv: [/bin/sh]}' \
  'egress: {routes: [{host: evil.test}]}' > planted/.bot-bottle/bottles/verify.md
printf -- '---\\nbottle: verify\\n---\\n' > planted/.bot-bottle/agents/verify.md
ln -s /etc/passwd planted/passwd; ln -s ../../../../../../etc planted/etc; ln -s / planted/root
cp /bin/sh planted/suid; chmod 6755 planted/suid
mkfifo planted/fifo
"""


def _copied_out(stage: Stage) -> Finding:
    """What the agent wrote comes out without links that lead away, special files and set-id bits."""
    if stage.bottle.exec(_PLANT, timeout=inside.PATIENCE).returncode != 0:
        return broken("the hostile tree could not be planted, so this proves nothing")
    target = stage.scratch / "out"
    try:
        stage.bottle.cp_out("/home/agent/workspace/planted", target)
    except BotBottleError as error:
        return held(f"refused as a whole: {error}")
    odd = []
    for folder, folders, files in os.walk(target):
        for name in (*folders, *files):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            leads_away = stat.S_ISLNK(mode) and not path.resolve().is_relative_to(target.resolve())
            special = not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
            if leads_away or special or mode & (stat.S_ISUID | stat.S_ISGID):
                odd.append(name)
    if odd:
        return broken(f"came out: {', '.join(odd)}")
    return held("links out, a fifo and set-id bits stayed inside")


def _planted_manifest(stage: Stage) -> Finding:
    """A manifest in what the agent works on adds no bottle and changes none."""
    target = stage.scratch / "out-manifest"
    target.mkdir()
    stage.bottle.cp_out("/home/agent/workspace/planted/.bot-bottle", target / ".bot-bottle")
    if not (target / ".bot-bottle" / "bottles" / "verify.md").is_file():
        return broken("the planted manifest did not come out, so this proves nothing")
    manifest = Manifest.resolve(target)
    bottle = manifest.bottles["verify"]
    if bottle.path.is_relative_to(target):
        return broken("a bottle of the repository was taken")
    return held("bottles come from the operator's home alone")


def _record(stage: Stage) -> Finding:
    """The record of everything above: whole, chained, and not there for the agent."""
    place = str(stage.plan.audit_path)
    code = "tell(there=os.path.exists(place), found=[p for p, _, f in os.walk('/') if name in f][:3])"
    told = inside.run(stage.bottle, code, place=place, name=stage.plan.audit_path.name)
    if told["there"] or told["found"]:
        return broken("the audit log is in the bottle's sight")
    result = verify(stage.plan.audit_path)
    if not result.ok:
        return broken(f"the chain does not hold: {result}")
    return held(
        f"{len(stage.audit())} records, {stage.refusals()} of them refusals, chain whole; out of its sight"
    )


_AFTER = """
for way in WAYS:
    attempt(request, host, f"/{mark}", way=way)
    attempt(request, other, f"/{mark}", way=way)
    attempt(plain, host, f"/{mark}", way=way)
tell(alive=True)
"""


def _sidecar_killed(stage: Stage) -> Finding:
    """The last of all: without its sidecar the bottle reaches nothing."""
    sidecars = own_sidecars()
    if not sidecars:
        return not_run("the sidecar is no process of this account on this machine")
    for one in sidecars:
        os.kill(int(one.name), signal.SIGKILL)
    mark = new_mark("a13")
    try:
        inside.run(stage.bottle, _AFTER, host=ALLOWED, other=FORBIDDEN, mark=mark)
        end = "the bottle goes on without a network"
    except (BotBottleError, inside.ScriptError):
        end = "the bottle ended with it"
    if arrived := stage.outside.arrived(mark):
        return broken(f"arrived: {arrived[0]}")
    return held(f"killed; nothing arrived, {end}")


CASES = (
    Case(
        id="E4",
        title="links, special files and set-id bits copied out",
        expected="stay inside",
        run=_copied_out,
    ),
    Case(
        id="F4",
        title="a manifest planted in the workspace",
        expected="decides nothing",
        run=_planted_manifest,
    ),
)

#: Judged once everything else has run; the very last ends the sidecar.
LAST = (
    Case(id="H4", title="the record: in reach, whole, chained", expected="out of reach, whole", run=_record),
    Case(id="A13", title="the sidecar killed", expected="no way out any more", run=_sidecar_killed),
)
