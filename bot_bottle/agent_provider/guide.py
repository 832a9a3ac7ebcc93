"""What an agent is told of the bottle it is in: how a refusal looks, and what to do about one."""

from __future__ import annotations

from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.agent_provider.plan import ProvisionFile
from bot_bottle.egress.hosts import EGRESS_LOCAL_HOST

GUIDE_PATH = f"{AGENT_HOME}/.bot-bottle/BOTTLE.md"

#: Goes with an agent's standing instructions, where its program has such.
POINTER = (
    f"You run in a bottle: network requests and git pushes may be refused. {GUIDE_PATH} says how a refusal "
    "looks and what to do; read it when one happens, and do not try the same again."
)

_GUIDE = f"""\
# You are in a bottle

Everything that leaves this machine passes a sidecar that you cannot change. It lets through what the operator
declared and refuses the rest. Credentials in files and variables here are placeholders: the sidecar puts the
real one in on the way to the one host it is for. Do not look for the real ones; they are not here.

## A refused request

It is answered with status 403 (404 or 502 in few cases), `X-Bot-Bottle-*` headers and this JSON:

    {{"error": "bot_bottle_denied", "reason": "host_not_allowed", "rule": "...", "message": "...",
      "next_step": "..."}}

- `reason` is a word for programs, `message` a sentence, `next_step` what can be done.
- The same request will be refused again. Use another source, or go on without it.
- What is open: `curl -s http://{EGRESS_LOCAL_HOST}/allowlist`
- There is no other way out: no DNS, no other port, no proxy.

## A refused push

git prints the reason, the rule and the place (commit, file, line) on lines that begin with `remote:`. A
secret in any commit of the push is a reason: take it out of every commit, then push again. Only declared
upstreams can be reached, by their usual URLs (`git config --get-regexp insteadof`).

## To have more opened

Say in your answer what you needed, for what, and the `host`, `reason` and `rule` of the refusal. The operator
reads that, and the record of every refusal, and may open it.
"""


def guide_file() -> ProvisionFile:
    """Give the file that every bottle has."""
    return ProvisionFile(path=GUIDE_PATH, content=_GUIDE.encode(), mode=0o644)


def standing(agent_prompt: str) -> str:
    """Give an agent's standing instructions, with where to read about refusals."""
    return f"{agent_prompt}\n\n{POINTER}" if agent_prompt else POINTER
