"""From one file's text to one frozen bottle, agent or route list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.agent_provider.registry import DEFAULT_TEMPLATE
from bot_bottle.manifest import values
from bot_bottle.manifest.frontmatter import split_frontmatter
from bot_bottle.manifest.model import (
    AgentOrigin,
    ManifestAgent,
    ManifestAgentProvider,
    ManifestAuth,
    ManifestBottle,
    ManifestEgress,
    ManifestLimits,
    ManifestPipelock,
    ManifestRoute,
)
from bot_bottle.manifest.problem import ManifestFileError, Problem
from bot_bottle.manifest.rules import bottle_problems, route_problems
from bot_bottle.manifest.schema import AgentKeys, BottleKeys, RouteKeys, RoutesFileKeys
from bot_bottle.manifest.validate import validate_keys
from bot_bottle.manifest.yaml_tree import parse_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.manifest.frontmatter import Frontmatter


def bottle_from_text(name: str, path: Path, text: str) -> ManifestBottle:
    """Read a bottle file; its body is for humans. Raises ``ManifestFileError`` with all that is wrong."""
    file = str(path)
    front = _split(text, file)
    tree = parse_yaml(front.yaml, file=file, first_line=front.first_line)
    keys, problems = validate_keys(tree, BottleKeys, file=file)
    if keys is not None:
        problems += bottle_problems(keys, tree, file)
    if keys is None or problems:
        raise ManifestFileError(problems)
    provider = keys.agent_provider
    limits = keys.limits
    return ManifestBottle(
        name=name,
        path=path,
        env=dict(keys.env),
        agent_provider=ManifestAgentProvider(
            template=provider.template or DEFAULT_TEMPLATE,
            argv=tuple(provider.argv),
            auth_token=provider.auth_token,
            dockerfile=provider.dockerfile,
            forward_host_credentials=provider.forward_host_credentials,
        ),
        egress=ManifestEgress(routes=tuple(_route(route) for route in keys.egress.routes)),
        limits=ManifestLimits(
            memory=values.memory_bytes(limits.memory) if limits.memory is not None else None,
            cpus=limits.cpus,
            pids=limits.pids,
            open_files=limits.open_files,
        ),
    )


def agent_from_text(name: str, path: Path, text: str, origin: AgentOrigin) -> ManifestAgent:
    """Read an agent file; its body is the prompt. Raises ``ManifestFileError`` with all that is wrong."""
    file = str(path)
    front = _split(text, file)
    tree = parse_yaml(front.yaml, file=file, first_line=front.first_line)
    keys, problems = validate_keys(tree, AgentKeys, file=file)
    if "\0" in front.body:
        line = text[: text.index("\0")].count("\n") + 1
        problems.append(
            Problem(
                file=file, line=line, column=1, key="", message="the prompt holds a NUL character; remove it"
            )
        )
    if keys is None or problems:
        raise ManifestFileError(problems)
    return ManifestAgent(name=name, path=path, bottle=keys.bottle, prompt=front.body.strip(), origin=origin)


def routes_from_text(path: Path, text: str) -> tuple[ManifestRoute, ...]:
    """Read the YAML of a routes file. Raises ``ManifestFileError`` with all that is wrong."""
    file = str(path)
    tree = parse_yaml(text.removeprefix("\ufeff"), file=file)
    keys, problems = validate_keys(tree, RoutesFileKeys, file=file)
    if keys is not None:
        problems += route_problems(keys.routes, tree, file, ("routes",))
    if keys is None or problems:
        raise ManifestFileError(problems)
    return tuple(_route(route) for route in keys.routes)


def _split(text: str, file: str) -> Frontmatter:
    try:
        return split_frontmatter(text)
    except ValueError as error:
        raise ManifestFileError([Problem(file=file, line=1, column=1, key="", message=str(error))]) from error


def _route(keys: RouteKeys) -> ManifestRoute:
    auth = keys.auth
    return ManifestRoute(
        host=keys.host,
        path_allowlist=tuple(keys.path_allowlist),
        methods=tuple(keys.methods),
        ports=tuple(keys.ports),
        auth=ManifestAuth(scheme=auth.scheme, token_ref=auth.token_ref) if auth else None,
        pipelock=ManifestPipelock(
            tls_passthrough=keys.pipelock.tls_passthrough,
            ssrf_ip_allowlist=tuple(keys.pipelock.ssrf_ip_allowlist),
        ),
    )
