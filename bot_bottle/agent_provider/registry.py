"""Which providers exist: one line each, and those that the operator added.

Nothing outside this folder asks which one it has.
"""

from __future__ import annotations

import difflib
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from bot_bottle.agent_provider import claude, codex, command
from bot_bottle.agent_provider.added import added_names, find_added
from bot_bottle.errors import ManifestError, UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from bot_bottle.agent_provider.plan import AgentProvisionPlan, ProvisionRequest
    from bot_bottle.manifest.model import ManifestAgent, ManifestAgentProvider, ManifestBottle


class Provider(Protocol):
    """What a provider's module offers.

    ``MANIFEST_KEYS`` are the ``agent_provider`` keys it understands besides ``template``, ``REQUIRED_KEYS``
    those of them it cannot do without (each with what to write), ``ALTERNATIVES`` those of which one at most
    may be written. ``INSTALL`` is the command that installs its program, named as the template is; empty
    where the manifest names the program. ``SKILLS_FOLDER`` is where the program looks for skills, below the
    home, on the host and in the bottle alike; empty if it has none. ``ASKS`` are the keys that ``init`` asks
    for, each with what most operators answer.
    """

    TEMPLATE: str
    MANIFEST_KEYS: frozenset[str]
    REQUIRED_KEYS: Mapping[str, str]
    ALTERNATIVES: frozenset[str]
    INSTALL: str
    SKILLS_FOLDER: str
    ASKS: Mapping[str, str]

    def provision(self, request: ProvisionRequest) -> AgentProvisionPlan:
        """Say what the program needs for this launch; raises ``UsageError`` for what it cannot be given."""


_PROVIDERS: dict[str, Provider] = {
    claude.TEMPLATE: claude,
    codex.TEMPLATE: codex,
    command.TEMPLATE: command,
}

#: The template of a bottle that names none.
DEFAULT_TEMPLATE = claude.TEMPLATE

#: Keys that go with every template.
_COMMON_KEYS = frozenset({"dockerfile", "image"})

#: Where programs of a bottle find the place to ask for more.
SUPERVISE_VARIABLE = "BOT_BOTTLE_SUPERVISE_URL"


def provider_named(template: str) -> Provider:
    """Give a provider, this version's own or one that the operator added.

    Raises ``UsageError`` (``ManifestError``) where there is none, or where an added one is wrong.
    """
    provider = _PROVIDERS.get(template) or find_added(template)
    if provider is None:
        raise UsageError(f"agent_provider.template: {_unknown_template(template)}")
    return provider


def known_templates() -> tuple[str, ...]:
    """List the templates of this version."""
    return tuple(_PROVIDERS)


def asked_keys(template: str) -> Mapping[str, str]:
    """Give the ``agent_provider`` keys that ``init`` asks for, each with what most operators answer."""
    return provider_named(template).ASKS


def skills_folder(template: str) -> str:
    """Give the folder of a template's skills below the home; ``""`` if its program has none."""
    return provider_named(template).SKILLS_FOLDER


def provider_programs() -> tuple[tuple[str, str], ...]:
    """Give each provider's own program, as it is looked up on the host, and the command that installs it."""
    return tuple((name, provider.INSTALL) for name, provider in _PROVIDERS.items() if provider.INSTALL)


def agent_provision_plan(
    bottle: ManifestBottle,
    agent: ManifestAgent,
    *,
    env: Mapping[str, str],
    headless: bool = False,
    prompt: str = "",
    resume: bool = False,
    preview: bool = False,
    supervise_url: str = "",
) -> AgentProvisionPlan:
    """Say, as data, what the bottle's provider needs to run ``agent`` once.

    ``env`` is the operator's environment, for providers that forward a host credential to the sidecar;
    ``prompt`` is a headless run's task; ``resume`` asks to go on with the preserved session; ``preview`` is
    for showing only, and reads nothing of the host. Raises ``UsageError`` where the provider cannot run so.
    """
    from bot_bottle.agent_provider.plan import ProvisionRequest  # noqa: PLC0415 - only a launch needs it
    from bot_bottle.env import entry_kind  # noqa: PLC0415

    request = ProvisionRequest(
        provider=bottle.agent_provider,
        agent_prompt=agent.prompt,
        host_env=env,
        bottle_env={name: entry for name, entry in bottle.env.items() if entry_kind(entry) == "literal"},
        headless=headless,
        prompt=prompt,
        resume=resume,
        preview=preview,
        supervise_url=supervise_url if bottle.supervise else "",
    )
    plan = provider_named(bottle.agent_provider.template).provision(request)
    if not request.supervise_url:
        return plan
    return replace(plan, guest_env={**plan.guest_env, SUPERVISE_VARIABLE: request.supervise_url})


def token_source_problem(provider: ManifestAgentProvider, env: Mapping[str, str]) -> str:
    """Say why the file or command that a provider's credential comes from gives none; ``""`` where it may.

    A file is read; a command is looked for and not run.
    """
    if provider.token_file:
        from bot_bottle.agent_provider import token_file  # noqa: PLC0415 - few bottles have any

        try:
            token_file.renewal(provider.token_file, env)
        except UsageError as error:
            return str(error)
    if provider.token_command and shutil.which(provider.token_command[0], path=env.get("PATH")) is None:
        return (
            f"agent_provider.token_command: there is no program {legible(provider.token_command[0])} that "
            "can be run; write its whole path"
        )
    return ""


def check_provider_keys(template: str, written: Collection[str]) -> list[tuple[str, str]]:
    """Check which ``agent_provider`` keys were written against what ``template`` understands.

    Gives (key, sentence) pairs; the key is ``""`` where the block as a whole lacks something.
    """
    try:
        provider = _PROVIDERS.get(template) or find_added(template)
    except ManifestError as error:
        return [("template", f"cannot be used: {str(error).partition(chr(10))[0]}")]
    if provider is None:
        return [("template", _unknown_template(template))]
    problems: list[tuple[str, str]] = []
    for key in sorted(written):
        if key not in provider.MANIFEST_KEYS | _COMMON_KEYS:
            owners = [name for name, other in _PROVIDERS.items() if key in other.MANIFEST_KEYS]
            owned = f"template {' or '.join(owners)} only" if owners else "another template"
            problems.append((key, f"is for {owned}, and this is {template}; remove it"))
    rivals = sorted(provider.ALTERNATIVES & set(written))
    problems += [(key, f"stands beside {rivals[0]}; keep one of them") for key in rivals[1:]]
    for key, example in provider.REQUIRED_KEYS.items():
        if key not in written:
            problems.append(("", f"template {template} needs {key}; write for example {key}: {example}"))
    return problems


def _unknown_template(template: str) -> str:
    names = (*_PROVIDERS, *added_names())
    known = ", ".join(names)
    close = difflib.get_close_matches(template.lower(), names, n=1)
    return (
        f"unknown template; did you mean {close[0]}?"
        if close
        else f"unknown template; choose one of: {known}"
    )
