"""What the operator reads before anything starts: names, places and limits, never a value.

A plan goes in, lines come out. Text that a repository may have written is made safe to print.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, TextIO

from bot_bottle.manifest.problem import shown
from bot_bottle.pipelock.selection import DETECTORS, SHORTEST_GUARDED
from bot_bottle.print_util import bottle_notes, env_lines, origin_text, remote_text, sourced
from bot_bottle.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot_bottle.agent_provider.plan import AgentProvisionPlan
    from bot_bottle.backend.plan import BottlePlan, LimitStatus
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.manifest.model import Manifest, ManifestAgent, ManifestBottle
    from bot_bottle.sidecar.config import Pin

_LABEL_WIDTH = 12

#: A summary: labels, each with its lines; a label without lines is left out.
Rows = list[tuple[str, "Sequence[str]"]]

#: What a backend calls each limit, and the manifest.
_LIMIT_KEYS = {"memory": "memory", "cpu": "cpus", "processes": "pids", "open files": "open_files"}


def preflight_lines(
    plan: BottlePlan, *, boundary: str = "", why: str = "", upstream_ca: str = ""
) -> tuple[str, ...]:
    """Say what ``plan`` would start.

    ``boundary`` is the backend's own, ``why`` says why it was chosen, ``upstream_ca`` is the path of the
    operator's extra CA file.
    """
    manifest, name = plan.spec.manifest, plan.spec.agent_name
    rows: Rows = [
        *declared_rows(manifest, name, plan.bottle, plan.provision, plan.routes),
        ("identity", (plan.identity,)),
        ("backend", (_backend_text(plan.backend_name, boundary, why),)),
        ("task", (first_line(plan.spec.prompt),) if plan.spec.headless and plan.spec.prompt else ()),
        ("pins", tuple(f"{host} -> {pin_text(pin)} (config.toml)" for host, pin in plan.pins.items())),
        ("proxy", (plan.upstream_proxy.shown,) if plan.upstream_proxy else ()),
        ("second hop", (f"{shown(plan.second_hop, 400)} (pipelock)",) if plan.second_hop else ()),
        ("upstream CA", (_ca_text(plan.upstream_ca_pem, upstream_ca),) if plan.upstream_ca_pem else ()),
        ("on request", _told_by(plan)),
        ("limits", tuple(_limit_line(limit, plan.bottle) for limit in plan.limits)),
        ("workspace", (_workspace_text(plan), *_lender_lines(plan))),
        ("audit", (str(plan.audit_path),)),
        ("note", (*plan.notes, *_unsearchable(plan), *bottle_notes(plan.bottle))),
    ]
    return layout(rows)


def _told_by(plan: BottlePlan) -> tuple[str, ...]:
    """Say how the operator hears of what the agent asks for."""
    command = (f"runs {shown(' '.join(plan.on_request), 200)} (config.toml)",) if plan.on_request else ()
    return (*command, *(("a notification on the desktop (config.toml)",) if plan.notify else ()))


def _unsearchable(plan: BottlePlan) -> tuple[str, ...]:
    """Name what is guarded in vain, so that the operator hears of it."""
    values = {name: secret.reveal() for name, secret in (*plan.secrets.items(), *plan.marked.items())}
    values |= {name: plan.guest_env[name] for name in plan.bottle.guard if name in plan.guest_env}
    short = [name for name, value in values.items() if len(value.strip()) < SHORTEST_GUARDED]
    return (
        (f"{', '.join(short)}: shorter than {SHORTEST_GUARDED} characters, so not looked for in traffic",)
        if short
        else ()
    )


def declared_rows(
    manifest: Manifest,
    agent_name: str,
    bottle: ManifestBottle,
    provision: AgentProvisionPlan | None,
    routes: Sequence[EgressRoute],
) -> Rows:
    """Say what an agent and its effective bottle declare, each setting with the file it was written in.

    ``provision`` is None for a provider that cannot be launched; ``routes`` are the effective ones.
    """
    agent, sources = manifest.require_agent(agent_name), bottle.sources
    template = bottle.agent_provider.template
    extends = f", extends {', '.join(bottle.extends)}" if bottle.extends else ""
    user = (sources.get("git.user.name"), sources.get("git.user.email"))
    identity = manifest.git_identity_summary(agent_name)
    return [
        ("agent", (agent_text(agent),)),
        ("bottle", (f"{bottle.name} ({bottle.path}){extends}",)),
        ("provider", (sourced(_provider_text(bottle), sources.get("agent_provider")),)),
        (
            "env",
            env_lines(
                bottle,
                provision.guest_env if provision else (),
                provision.hidden_env_names if provision else frozenset(),
                template,
            ),
        ),
        ("prompt", (first_line(agent.prompt),)),
        ("skills", (sourced(", ".join(agent.skills), agent.sources.get("skills")),) if agent.skills else ()),
        ("git identity", (sourced(shown(identity, 400), *user),) if identity else ()),
        (
            "git gate",
            tuple(
                sourced(remote_text(remote), sources.get(f"git.remotes.{remote.host}"))
                for remote in bottle.git.remotes
            ),
        ),
        (
            "egress",
            tuple(sourced(route_text(route), origin_text(route.origin, sources)) for route in routes)
            or ("(no way out)",),
        ),
        ("guarded", tuple(sourced(name, sources.get(f"guard.{name}")) for name in bottle.guard)),
        (
            "supervise",
            (sourced("on" if bottle.supervise else "off", sources["supervise"]),)
            if "supervise" in sources
            else (),
        ),
    ]


def print_preflight(
    plan: BottlePlan,
    *,
    boundary: str = "",
    why: str = "",
    upstream_ca: str = "",
    file: TextIO | None = None,
) -> None:
    """Write :func:`preflight_lines` to ``file``, by default stderr, which leaves stdout to the agent."""
    lines = preflight_lines(plan, boundary=boundary, why=why, upstream_ca=upstream_ca)
    print("\n".join(lines), file=file or sys.stderr, flush=True)


def _provider_text(bottle: ManifestBottle) -> str:
    """Say which program runs, and with what the operator declared for it."""
    provider = bottle.agent_provider
    parts = [provider.template]
    if provider.argv:
        parts.append(shown(shlex.join(provider.argv), 400))
    if provider.dockerfile:
        parts.append(f"[dockerfile {shown(provider.dockerfile, 400)}]")
    if provider.image:
        parts.append(f"[image {shown(provider.image, 400)}]")
    if provider.forward_host_credentials:
        parts.append("[forwards the host's login to the sidecar]")
    return " ".join(parts)


def agent_text(agent: ManifestAgent) -> str:
    """Name an agent and where it was declared."""
    where = "from this repository, " if agent.origin == "repository" else ""
    return f"{agent.name} ({where}{shown(str(agent.path), 400)})"


def first_line(text: str) -> str:
    """Give the first line of a prompt, safe to print, with its whole length."""
    if not text:
        return "(empty)"
    line = text.strip().partition("\n")[0].strip()
    return f"{shown(line, 72)} ({counted(len(text), 'character')})"


def route_text(route: EgressRoute) -> str:
    """Say in one line what a route opens."""
    parts = [route.host]
    if route.auth:
        parts.append(f"[auth:{route.auth.shown} {route.auth.token_ref}]")
    parts += _content_texts(route)
    if route.strip_cookies:
        parts.append("[cookies removed]")
    if route.http2:
        parts.append("[http2]")
    if route.git_read:
        parts.append("[git fetches only]")
    if route.methods:
        parts.append("methods " + ",".join(route.methods))
    if route.ports:
        parts.append("ports " + ",".join(str(port) for port in route.ports))
    if route.path_allowlist:
        parts.append("paths " + " ".join(route.path_allowlist))
    if route.ssrf_ip_allowlist:
        parts.append("may resolve to " + " ".join(str(network) for network in route.ssrf_ip_allowlist))
    return " ".join(parts)


def _content_texts(route: EgressRoute) -> Iterator[str]:
    if route.tls_passthrough:
        yield "[content rules off]"
    elif route.detectors != DETECTORS:
        yield f"[content rules: {', '.join(route.detectors) or 'none'}]"
    if route.on_match != "block":
        yield f"[what is found: {route.on_match}]"
    if route.on_opaque:
        yield f"[unreadable content: {route.on_opaque}]"
    if route.max_body is not None:
        yield f"[bodies up to {route.max_body} bytes]"
    if route.answers == "block":
        yield "[answers that give orders: blocked]"


def limit_text(limit: LimitStatus) -> str:
    """Say whether a limit holds on this machine, and by what or why not."""
    name = f"{limit.name} {limit.value}".rstrip()
    return f"{name}: {'holds' if limit.holds else 'NOT HELD'} ({limit.how})"


def pin_text(pin: Pin) -> str:
    """Write a pin's address, and its port where it has one."""
    if pin.port is None:
        return pin.address
    return f"[{pin.address}]:{pin.port}" if ":" in pin.address else f"{pin.address}:{pin.port}"


def _backend_text(name: str, boundary: str, why: str) -> str:
    return name + (f" ({why})" if why else "") + (f"; {boundary}" if boundary else "")


def _ca_text(pem: str, path: str) -> str:
    count = pem.count("-----BEGIN CERTIFICATE-----")
    return f"{path or 'config.toml'}: {counted(count, 'certificate')} trusted for upstream servers"


def _limit_line(limit: LimitStatus, bottle: ManifestBottle) -> str:
    key = _LIMIT_KEYS.get(limit.name, "")
    return sourced(limit_text(limit), bottle.sources.get(f"limits.{key}"))


def _lender_lines(plan: BottlePlan) -> tuple[str, ...]:
    """Name the repositories whose history comes along because the copied one borrows from them."""
    return tuple(
        f"with what its branches and tags reach in {shown(str(one), 400)}, which it borrows from"
        for one in plan.lenders
    )


def _workspace_text(plan: BottlePlan) -> str:
    source = plan.bottle.sources.get("workspace")
    declared_copy = plan.bottle.workspace == "copy"
    end = "kept" if plan.spec.keep else "removed after exit code 0 unless --keep is given"
    if plan.spec.identity:
        return f"as the last session left it, {end}"
    if plan.spec.repo:
        return f"a clone of {shown(plan.spec.repo, 400)} through the git gate, {end}"
    if plan.spec.copy_cwd:
        text = f"a private copy of {shown(str(plan.spec.user_cwd), 400)}, {end}"
        return sourced(text, source if declared_copy else None)
    if declared_copy:
        return f"empty (--no-cwd), {end}"
    return sourced(f"empty (--cwd copies the current folder in), {end}", source)


def layout(rows: Rows) -> tuple[str, ...]:
    """Give the lines of a summary."""
    return tuple(_layout(rows))


def _layout(rows: Sequence[tuple[str, Sequence[str]]]) -> Iterator[str]:
    for label, values in rows:
        for index, value in enumerate(values):
            yield f"  {(label if index == 0 else ''):<{_LABEL_WIDTH}}{':' if index == 0 else ' '} {value}"
