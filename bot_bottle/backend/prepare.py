"""From what the operator asked for to a plan: everything is decided and checked, nothing is started.

The order matters: the provider comes first, because its routes feed egress; credentials are looked up last
and only to be sure that they are there.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bot_bottle import bottle_state, paths
from bot_bottle.agent_account import AGENT_HOME, AGENT_USER
from bot_bottle.agent_provider.common import with_common_files, with_git_gate
from bot_bottle.agent_provider.registry import agent_provision_plan
from bot_bottle.backend.plan import BottlePlan
from bot_bottle.backend.util import network_env
from bot_bottle.egress.routes import egress_resolve_token_values, egress_routes_for_bottle
from bot_bottle.env import entry_kind, resolve_env
from bot_bottle.errors import UnavailableError, UsageError
from bot_bottle.git_gate.preparation import gate_remotes, named_remotes
from bot_bottle.git_gate.spellings import is_spelling
from bot_bottle.legible import legible
from bot_bottle.operator_config import load_operator_config
from bot_bottle.secret import Secret
from bot_bottle.sidecar.listeners import GIT_PORT, SUPERVISE_PORT
from bot_bottle.upstream_proxy import with_password
from bot_bottle.workspace import look_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bot_bottle.backend.base import BottleBackend
    from bot_bottle.backend.plan import BottleSpec
    from bot_bottle.git_gate.remote import GateRemote
    from bot_bottle.manifest.model import ManifestBottle
    from bot_bottle.operator_config import OperatorConfig

Value = TypeVar("Value")

#: Where programs are looked for inside every bottle; backends put the provider's program into the first.
AGENT_PATH = f"/opt/bot-bottle/bin:/usr/local/bin:/usr/bin:/bin:{AGENT_HOME}/.local/bin"

# What the terminal is, and nothing else of the operator's environment.
_TERMINAL_VARIABLES = ("TERM", "COLORTERM", "TZ")
#: What nearly every terminal understands.
_TERMINAL_TYPE = "xterm-256color"


def prepare(
    spec: BottleSpec,
    backend: BottleBackend,
    config: OperatorConfig | None = None,
    *,
    ask: Callable[[str, str], str] | None = None,
) -> BottlePlan:
    """Decide a launch and, for a new one, write its metadata with the backend's own name.

    ``launch.discard`` forgets it again where the operator says no. Raises what :func:`prepare_plan` raises.
    """
    plan = prepare_plan(spec, backend, config or load_operator_config(), ask=ask)
    if not spec.identity:
        bottle_state.create_state(metadata_for(plan))
    return plan


def prepare_plan(
    spec: BottleSpec,
    backend: BottleBackend,
    config: OperatorConfig,
    *,
    host_env: Mapping[str, str] | None = None,
    ask: Callable[[str, str], str] | None = None,
) -> BottlePlan:
    """Decide one launch in full.

    ``ask(name, message)`` reads one prompted ``env`` value from the operator; None where there is no
    terminal. Raises ``UsageError`` (an unknown agent, an unset variable, a bad manifest) or
    ``UnavailableError`` (this machine cannot); either way nothing was written or started.
    """
    host_env = os.environ if host_env is None else host_env
    agent = spec.manifest.require_agent(spec.agent_name)
    bottle = spec.manifest.bottle_for(spec.agent_name)
    spec = _with_upstream(spec, bottle)
    missing: list[str] = []
    provision = agent_provision_plan(
        bottle,
        agent,
        env=host_env,
        headless=spec.headless,
        prompt=spec.prompt,
        resume=bool(spec.identity),
        supervise_url=f"http://{backend.sidecar_address}:{SUPERVISE_PORT}/mcp",
    )
    provision = with_common_files(provision, bottle, agent, env=host_env, resume=bool(spec.identity))
    no_remotes: tuple[GateRemote, ...] = ()
    git_remotes = _tried(missing, lambda: gate_remotes(bottle.git.remotes, host_env), no_remotes)
    provision = with_git_gate(provision, git_remotes, f"http://{backend.sidecar_address}:{GIT_PORT}")
    routes = egress_routes_for_bottle(bottle, provision.egress_routes)
    tokens = {**host_env, **provision.provisioned_env}
    no_secrets: dict[str, Secret] = {}
    places = _written_at(bottle)
    secrets = _tried(missing, lambda: egress_resolve_token_values(routes, tokens, places=places), no_secrets)
    nothing: tuple[tuple[Path, ...], tuple[str, ...]] = ((), ())
    copies = spec.copy_cwd and not spec.identity
    lenders, notes = _tried(missing, lambda: look_at(spec.user_cwd), nothing) if copies else nothing
    unmarked: dict[str, Secret] = {}
    marked = _tried(missing, lambda: marked_outside(bottle, host_env), unmarked)
    unasked = ask if ask is None or not missing else lambda _name, _message: ""
    resolved = _tried(missing, lambda: resolve_env(bottle.env, host_env, unasked), None)
    if resolved is None or missing:
        raise UsageError("; ".join(missing))
    identity = spec.identity or bottle_state.new_identity(spec.agent_name)
    # Its requests, and credentials that end or that a server refuses.
    told_of = bottle.supervise or bool(provision.renewals) or bool(secrets)
    plan = BottlePlan(
        spec=spec,
        identity=identity,
        backend_name=backend.name,
        bottle=bottle,
        provision=provision,
        routes=routes,
        state_dir=bottle_state.bottle_state_dir(identity),
        audit_path=paths.audit_path(identity),
        guest_env=_base_env(host_env)
        | network_env(backend.sidecar_address)
        | resolved.merged()
        | provision.guest_env,
        secrets=secrets,
        pins=config.pins,
        upstream_ca_pem=config.upstream_ca_pem,
        upstream_proxy=with_password(config.proxy, host_env) if config.proxy else None,
        git_remotes=git_remotes,
        marked=marked,
        limits=backend.limits(bottle),
        notes=notes,
        on_request=config.on_request if told_of else (),
        notify=config.notify and told_of,
        second_hop=second_hop(bottle, config),
        lenders=lenders,
    )
    backend.check(plan)
    return plan


def _with_upstream(spec: BottleSpec, bottle: ManifestBottle) -> BottleSpec:
    """Put the URL of a declared remote for its name in ``--repo``; raises ``UsageError`` for what is none."""
    if not spec.repo:
        return spec
    declared = named_remotes(bottle.git.remotes)
    named = [remote.upstream for remote in declared if spec.repo in {remote.name, remote.host}]
    if len(named) == 1:
        return replace(spec, repo=named[0])
    if named or not is_spelling(declared, spec.repo):
        known = ", ".join(f"{remote.name} ({remote.upstream})" for remote in declared) or "none"
        wrong = "several remotes have that name" if named else f"is no remote of bottle {bottle.name}"
        raise UsageError(
            f"--repo {legible(spec.repo)}: {wrong}, and what a bottle may clone stands in its "
            f"git.remotes; write the name or URL of one of: {known}"
        )
    return spec


def _written_at(bottle: ManifestBottle) -> dict[str, str]:
    """Say of the variables that the provider's own routes get their credentials from where they are named."""
    provider = bottle.agent_provider
    keys = {provider.auth_token: "agent_provider.auth_token", provider.api_key: "agent_provider.api_key"}
    block = bottle.sources.get("agent_provider")
    return {ref: f"{key}, {block}" if block else key for ref, key in keys.items() if ref}


def _tried(missing: list[str], step: Callable[[], Value], otherwise: Value) -> Value:
    """Take a step; where it says that something is missing, that is told together with what others miss."""
    try:
        return step()
    except UsageError as error:
        missing.append(str(error))
        return otherwise


def second_hop(bottle: ManifestBottle, config: OperatorConfig) -> str:
    """Find the external pipelock program where the bottle asks for it; raises ``UnavailableError``."""
    if bottle.pipelock != "external":
        return ""
    where = f"bottle {bottle.name} has pipelock: {{engine: external}}"
    if config.proxy or config.pins:
        what = "a proxy" if config.proxy else "pins"
        raise UsageError(
            f"{where}, and config.toml has {what}: the program finds its own way and knows neither; "
            "remove one of the two"
        )
    program = shutil.which(config.pipelock or "pipelock")
    if program is None:
        named = f"is not at {config.pipelock} (config.toml)" if config.pipelock else "is not on PATH"
        raise UnavailableError(
            f"{where}, and the program pipelock {named}; install it (github.com/luckyPipewrench/pipelock), "
            "name it in config.toml ([pipelock] program), or remove engine: external"
        )
    return str(Path(program).absolute())


def with_answers(plan: BottlePlan, ask: Callable[[str, str], str]) -> BottlePlan:
    """Ask for the prompted ``env`` values of a plan that was made without them.

    A launch asks so only after the operator has seen the plan and said yes. ``ask`` is that of
    :func:`prepare_plan`. Raises ``UsageError`` for a value that no variable can hold.
    """
    asked = {
        name: entry
        for name, entry in plan.bottle.env.items()
        if entry_kind(entry) == "asked" and name not in plan.provision.guest_env
    }
    if not asked:
        return plan
    return replace(plan, guest_env={**plan.guest_env, **resolve_env(asked, {}, ask).forwarded})


def with_terminal_type(plan: BottlePlan) -> BottlePlan:
    """Give the agent of a plan made without a terminal the type of those that will be attached to it."""
    return replace(plan, guest_env={"TERM": _TERMINAL_TYPE, **plan.guest_env})


def metadata_for(plan: BottlePlan) -> bottle_state.BottleMetadata:
    """Give the metadata of a plan's first launch."""
    return bottle_state.BottleMetadata(
        identity=plan.identity,
        agent_name=plan.spec.agent_name,
        bottle_name=plan.bottle.name,
        cwd=str(plan.spec.user_cwd),
        copy_cwd=plan.spec.copy_cwd,
        started_at=bottle_state.utc_now(),
        backend=plan.backend_name,
    )


def marked_outside(bottle: ManifestBottle, host_env: Mapping[str, str]) -> dict[str, Secret]:
    """Look up what ``guard`` names outside the bottle's own ``env``."""
    names = [name for name in bottle.guard if name not in bottle.env]
    missing = [name for name in names if not host_env.get(name)]
    if missing:
        raise UsageError(
            f"guard: neither env of the bottle nor your environment has {', '.join(missing)}; "
            "export what is missing before starting, or take it out of guard"
        )
    return {name: Secret(host_env[name]) for name in names}


def _base_env(host_env: Mapping[str, str]) -> dict[str, str]:
    terminal = {name: host_env.get(name, "") for name in _TERMINAL_VARIABLES}
    return {
        **{name: value for name, value in terminal.items() if value and value.isprintable()},
        "HOME": AGENT_HOME,
        "USER": AGENT_USER,
        "LOGNAME": AGENT_USER,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "PATH": AGENT_PATH,
    }
