"""From one file's text to one frozen bottle, agent or route list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

from bot_bottle.agent_provider.registry import DEFAULT_TEMPLATE
from bot_bottle.egress.routes import on_match, preset_named, usage_api
from bot_bottle.git_gate.policy import PushPolicy
from bot_bottle.manifest import values
from bot_bottle.manifest.frontmatter import split_frontmatter
from bot_bottle.manifest.layers import BottleFile, Layer, Named, Said
from bot_bottle.manifest.model import (
    AgentOrigin,
    ContentEngine,
    ManifestAgent,
    ManifestAgentProvider,
    ManifestAuth,
    ManifestGitRemote,
    ManifestGitUser,
    ManifestPipelock,
    ManifestRoute,
    ManifestSource,
    Workspace,
)
from bot_bottle.manifest.problem import ManifestFileError, Problem, key_text
from bot_bottle.manifest.remotes import parse_upstream
from bot_bottle.manifest.rules import (
    bottle_problems,
    git_user_problems,
    remotes_by_host,
    repeated,
    route_problems,
    sound_part_problems,
)
from bot_bottle.manifest.schema import AgentKeys, BottleKeys, GitRemoteKeys, RouteKeys, RoutesFileKeys
from bot_bottle.manifest.validate import validate_keys
from bot_bottle.manifest.yaml_tree import parse_yaml
from bot_bottle.pipelock.selection import DETECTORS

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.manifest.frontmatter import Frontmatter
    from bot_bottle.manifest.problem import KeyPath
    from bot_bottle.manifest.yaml_tree import YamlTree

Value = TypeVar("Value")


def bottle_from_text(name: str, path: Path, text: str) -> BottleFile:
    """Read a bottle file; its body is for humans. Raises ``ManifestFileError`` with all that is wrong.

    What it extends is not looked at here, see ``extends.py``.
    """
    file = str(path)
    front = _split(text, file)
    tree = parse_yaml(front.yaml, file=file, first_line=front.first_line)
    keys, problems = validate_keys(tree, BottleKeys, file=file)
    if keys is not None:
        problems += bottle_problems(keys, tree, file)
    elif not tree.problems:
        problems += sound_part_problems(tree, problems, file)
    if keys is None or problems:
        raise ManifestFileError(problems)
    return BottleFile(
        name=name,
        path=path,
        extends=tuple(
            Said(parent, _source(tree, path, ("extends", index))) for index, parent in enumerate(keys.extends)
        ),
        layer=_layer(keys, tree, path),
    )


def agent_from_text(name: str, path: Path, text: str, origin: AgentOrigin) -> ManifestAgent:
    """Read an agent file; its body is the prompt. Raises ``ManifestFileError`` with all that is wrong."""
    file = str(path)
    front = _split(text, file)
    tree = parse_yaml(front.yaml, file=file, first_line=front.first_line)
    keys, problems = validate_keys(tree, AgentKeys, file=file)
    if keys is not None and "user" in keys.git.model_fields_set:
        problems += git_user_problems(keys.git.user, tree, file)
    if keys is not None:
        problems += repeated(keys.skills, tree, file, ("skills",))
    if "\0" in front.body:
        line = text[: text.index("\0")].count("\n") + 1
        problems.append(
            Problem(
                file=file, line=line, column=1, key="", message="the prompt holds a NUL character; remove it"
            )
        )
    if keys is None or problems:
        raise ManifestFileError(problems)
    user = keys.git.user
    written: list[KeyPath] = [("bottle",), ("skills",), ("git", "user", "name"), ("git", "user", "email")]
    return ManifestAgent(
        name=name,
        path=path,
        bottle=keys.bottle,
        prompt=front.body.strip(),
        origin=origin,
        skills=tuple(keys.skills),
        git_user=ManifestGitUser(name=user.name, email=user.email),
        sources={key_text(key): _source(tree, path, key) for key in written if key in tree.keys},
    )


def routes_from_text(path: Path, text: str) -> tuple[ManifestRoute, ...]:
    """Read the YAML of a routes file. Raises ``ManifestFileError`` with all that is wrong."""
    file = str(path)
    tree = parse_yaml(text.removeprefix("\ufeff"), file=file)
    keys, problems = validate_keys(tree, RoutesFileKeys, file=file)
    if keys is not None:
        problems += route_problems(keys.routes, tree, file, ("routes",))
    if keys is None or problems:
        raise ManifestFileError(problems)
    return tuple(manifest_route(route) for route in keys.routes)


def _layer(keys: BottleKeys, tree: YamlTree, path: Path) -> Layer:
    """Keep what was written, each with its place."""

    def said(value: Value, *key: str | int) -> Said[Value] | None:
        return Said(value, _source(tree, path, key)) if key in tree.keys else None

    egress, user, provider, limits = keys.egress, keys.git.user, keys.agent_provider, keys.limits
    word = "add_routes" if egress.add_routes else "routes"
    workspace: Workspace = "copy" if keys.workspace == "copy" else "empty"
    engine: ContentEngine = "external" if keys.pipelock.engine == "external" else "builtin"
    return Layer(
        env=Named(
            {name: Said(value, _source(tree, path, ("env", name))) for name, value in keys.env.items()}
        ),
        routes=Named(
            {
                route.host: Said(manifest_route(route), _source(tree, path, ("egress", word, index)))
                for index, route in enumerate(egress.add_routes or egress.routes)
            },
            # `egress: {}` closes as well: what could be meant in two ways must not open anything.
            alone="egress" in keys.model_fields_set and not egress.add_routes,
        ),
        remotes=Named(
            {
                host: Said(_remote(host, remote), _source(tree, path, ("git", "remotes", written)))
                for host, (written, remote) in remotes_by_host(keys, tree).items()
            },
            alone="remotes" in keys.git.model_fields_set and not keys.git.remotes,
        ),
        user_name=said(user.name, "git", "user", "name"),
        user_email=said(user.email, "git", "user", "email"),
        guard=Named(
            {name: Said(name, _source(tree, path, ("guard", index))) for index, name in enumerate(keys.guard)}
        ),
        provider=said(
            ManifestAgentProvider(
                template=provider.template or DEFAULT_TEMPLATE,
                argv=tuple(provider.argv),
                auth_token=provider.auth_token,
                api_key=provider.api_key,
                plan=provider.plan,
                token_command=tuple(provider.token_command),
                token_file=provider.token_file,
                dockerfile=provider.dockerfile,
                image=provider.image,
                forward_host_credentials=provider.forward_host_credentials,
            ),
            "agent_provider",
        ),
        limits=Named(
            {
                name: Said(value, _source(tree, path, ("limits", name)))
                for name, value in (
                    ("memory", values.memory_bytes(limits.memory) if limits.memory else 0),
                    ("cpus", limits.cpus),
                    ("pids", limits.pids),
                    ("open_files", limits.open_files),
                )
                if ("limits", name) in tree.keys
            }
        ),
        pipelock=said(engine, "pipelock"),
        supervise=said(keys.supervise, "supervise"),
        workspace=said(workspace, "workspace"),
    )


def _source(tree: YamlTree, path: Path, key: KeyPath) -> ManifestSource:
    # Of a block, the line that names it is the one to look for; of a value or a list's element, its own.
    is_block = key == ("agent_provider",) or key[:2] == ("git", "remotes")
    line, column = tree.place(key, of_key=is_block)
    return ManifestSource(path=path, line=line, column=column, key=key_text(key))


def _remote(host: str, keys: GitRemoteKeys) -> ManifestGitRemote:
    upstream = parse_upstream(keys.Upstream)
    return ManifestGitRemote(
        host=host,
        name=keys.Name,
        upstream=keys.Upstream,
        scheme=upstream.scheme,
        user=upstream.user,
        upstream_host=upstream.host,
        port=upstream.port,
        path=upstream.path,
        identity_file=keys.IdentityFile,
        known_host_key=keys.KnownHostKey,
        token_ref=keys.TokenRef,
        push=PushPolicy(
            branches=tuple(keys.Branches),
            force=keys.AllowForce,
            delete=keys.AllowDelete,
            tags=keys.AllowTags,
            default_branch=keys.AllowDefaultBranch,
            paths=tuple(keys.AllowPaths),
            max_bytes=keys.MaxPushBytes,
            max_objects=keys.MaxPushObjects,
        ),
    )


def _split(text: str, file: str) -> Frontmatter:
    try:
        return split_frontmatter(text)
    except ValueError as error:
        raise ManifestFileError([Problem(file=file, line=1, column=1, key="", message=str(error))]) from error


def manifest_route(keys: RouteKeys) -> ManifestRoute:
    """Freeze one checked route."""
    auth = keys.auth
    return ManifestRoute(
        host=keys.host,
        path_allowlist=tuple(keys.path_allowlist),
        methods=tuple(keys.methods),
        ports=tuple(keys.ports),
        auth=ManifestAuth(
            scheme=auth.scheme, token_ref=auth.token_ref, name=auth.name, placeholder=auth.placeholder
        )
        if auth
        else None,
        http2=keys.http2,
        usage=usage_api(keys.usage),
        preset=preset_named(keys.preset),
        pipelock=ManifestPipelock(
            tls_passthrough=keys.pipelock.tls_passthrough,
            ssrf_ip_allowlist=tuple(keys.pipelock.ssrf_ip_allowlist),
            detectors=tuple(kind for kind in DETECTORS if kind in keys.pipelock.detectors),
            on_match=on_match(keys.pipelock.on_match),
            on_opaque=_on_opaque(keys.pipelock.on_opaque),
            max_body=keys.pipelock.max_body,
            responses=_responses(keys.pipelock.responses),
        ),
        strip_cookies=keys.strip_cookies,
    )


def _responses(text: str) -> Literal["off", "warn", "block"]:
    return "off" if text == "off" else "block" if text == "block" else "warn"


def _on_opaque(text: str) -> Literal["deny", "allow"] | None:
    if not text:
        return None
    return "allow" if text == "allow" else "deny"
