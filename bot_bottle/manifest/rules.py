"""Rules that concern more than one key of one bottle file, checked once each key by itself is right."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from bot_bottle.agent_provider.registry import DEFAULT_TEMPLATE, check_provider_keys
from bot_bottle.egress.headers import may_inject
from bot_bottle.egress.hosts import EGRESS_LOCAL_HOST, is_ip_literal
from bot_bottle.manifest.hosts import parse_remote_host
from bot_bottle.manifest.problem import Problem, shown
from bot_bottle.manifest.remotes import parse_upstream
from bot_bottle.manifest.schema import AgentProviderKeys, BottleKeys
from bot_bottle.manifest.validate import problem_at, validate_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bot_bottle.manifest.problem import KeyPath
    from bot_bottle.manifest.schema import AuthKeys, GitRemoteKeys, GitUserKeys, RouteKeys
    from bot_bottle.manifest.yaml_tree import YamlTree

#: Where the name of a top block ends in a problem's key.
_BLOCK_END = re.compile(r"[.\[]")
_PARAMETER = re.compile(r"[A-Za-z0-9._-]+")


def bottle_problems(keys: BottleKeys, tree: YamlTree, file: str) -> list[Problem]:
    """Find what is wrong between the keys of one bottle."""
    provider = keys.agent_provider
    written = provider.model_fields_set - {"template"}
    problems = [
        problem_at(
            tree, file, ("agent_provider", *((name,) if name else ())), message, of_key=name in written
        )
        for name, message in check_provider_keys(provider.template or DEFAULT_TEMPLATE, written)
    ]
    egress, git = keys.egress, keys.git
    problems += route_problems(egress.routes, tree, file, ("egress", "routes"))
    problems += route_problems(egress.add_routes, tree, file, ("egress", "add_routes"))
    if {"routes", "add_routes"} <= egress.model_fields_set:
        message = "stands beside routes; write routes (replaces what is inherited) or add_routes (adds to it)"
        problems.append(problem_at(tree, file, ("egress", "add_routes"), message, of_key=True))
    if "user" in git.model_fields_set:
        problems += git_user_problems(git.user, tree, file)
    problems += repeated(keys.guard, tree, file, ("guard",))
    problems += _repeated_remotes(tree, file)
    for host, (key, remote) in remotes_by_host(keys, tree).items():
        problems += _remote_problems(host, remote, tree, file, ("git", "remotes", key))
    return problems


def sound_part_problems(tree: YamlTree, told: Sequence[Problem], file: str) -> list[Problem]:
    """Find what is wrong between the keys of a bottle in spite of ``told``, which keeps it from being read.

    That is between the keys of those blocks that have no mistake by themselves, and in ``agent_provider``
    what is left to say where only a part of it is right.
    """
    data = tree.data
    if not isinstance(data, dict):
        return []
    broken = {_BLOCK_END.split(problem.key)[0] for problem in told}
    sound = replace(
        tree,
        data={name: value for name, value in data.items() if name not in broken},
        keys={path: place for path, place in tree.keys.items() if path and path[0] not in broken},
    )
    keys, _ = validate_keys(sound, BottleKeys, file=file)
    found = bottle_problems(keys, sound, file) if keys is not None else []
    provider = data.get("agent_provider")
    if "agent_provider" in broken and isinstance(provider, dict):
        found += _provider_problems(provider, told, tree, file)
    return found


def _provider_problems(
    provider: Mapping[object, object], told: Sequence[Problem], tree: YamlTree, file: str
) -> Iterator[Problem]:
    """Find what is wrong with the keys there are; one of them may be a misspelling of what is missing."""
    template = provider.get("template", DEFAULT_TEMPLATE)
    if not isinstance(template, str) or not template:
        return
    known = AgentProviderKeys.model_fields.keys()
    said = {problem.key for problem in told}
    written = {str(name) for name in provider} - {"template"}
    for name, message in check_provider_keys(template, written & known):
        key = f"agent_provider.{name}" if name else ""
        if key not in said and (name or written <= known):
            yield problem_at(
                tree, file, ("agent_provider", *((name,) if name else ())), message, of_key=name in written
            )


def git_user_problems(user: GitUserKeys, tree: YamlTree, file: str) -> Iterator[Problem]:
    """Find what is wrong with a declared ``git.user``."""
    if not user.name and not user.email:
        message = "is empty; write for example user: {name: Some One, email: someone@example.com}"
        yield problem_at(tree, file, ("git", "user"), message, of_key=True)


def repeated(items: Sequence[str], tree: YamlTree, file: str, at: KeyPath) -> Iterator[Problem]:
    """Find what stands in a list twice."""
    for index, item in enumerate(items):
        if item in items[:index]:
            yield problem_at(tree, file, (*at, index), "is written twice; keep one")


def remotes_by_host(keys: BottleKeys, tree: YamlTree) -> dict[str, tuple[str, GitRemoteKeys]]:
    """Give the remotes by normalised host, each with its key as it was written."""
    spelled = {parse_remote_host(key): key for key in _remote_keys(tree)}
    return {host: (spelled[host], remote) for host, remote in keys.git.remotes.items()}


def _remote_keys(tree: YamlTree) -> list[str]:
    return [str(key[2]) for key in tree.keys if len(key) == 3 and key[:2] == ("git", "remotes")]


def _repeated_remotes(tree: YamlTree, file: str) -> Iterator[Problem]:
    """Find one host in two spellings; the same spelling twice is a repeated key already."""
    first: dict[str, str] = {}
    for key in _remote_keys(tree):
        other = first.setdefault(parse_remote_host(key), key)
        if other != key:
            message = f"repeats {shown(other)}; write one remote for each host"
            yield problem_at(tree, file, ("git", "remotes", key), message, of_key=True)


def _remote_problems(
    host: str, remote: GitRemoteKeys, tree: YamlTree, file: str, path: KeyPath
) -> Iterator[Problem]:
    upstream = parse_upstream(remote.Upstream)
    if upstream.host != host and not is_ip_literal(upstream.host):
        message = f"leads to {upstream.host}; declare it under that host"
        yield problem_at(tree, file, (*path, "Upstream"), message)
    if upstream.scheme == "ssh" and not remote.IdentityFile:
        message = "is missing; an ssh upstream needs one, such as IdentityFile: ~/.ssh/id_ed25519"
        yield problem_at(tree, file, (*path, "IdentityFile"), message)
    if upstream.scheme == "ssh" and remote.TokenRef:
        message = "is for https upstreams only, and this one is ssh; remove it"
        yield problem_at(tree, file, (*path, "TokenRef"), message, of_key=True)
    if upstream.scheme == "https":
        for name in ("IdentityFile", "KnownHostKey"):
            if name in remote.model_fields_set:
                message = "is for ssh upstreams only, and this one is https; remove it"
                yield problem_at(tree, file, (*path, name), message, of_key=True)


def route_problems(routes: Sequence[RouteKeys], tree: YamlTree, file: str, at: KeyPath) -> Iterator[Problem]:
    """Find what is wrong between the routes of one list, which stands at ``at``."""
    first: dict[str, int] = {}
    for index, route in enumerate(routes):
        path = (*at, index)
        if route.host == EGRESS_LOCAL_HOST:
            message = "is answered by the sidecar itself; remove the route"
            yield problem_at(tree, file, (*path, "host"), message)
        if route.host in first:
            message = f"repeats {route.host} of routes[{first[route.host]}]; write one route for each host"
            yield problem_at(tree, file, (*path, "host"), message)
        first.setdefault(route.host, index)
        if route.auth and (problem := _auth_problem(route.auth)):
            name, message = problem
            yield problem_at(
                tree, file, (*path, "auth", name), message, of_key="name" in route.auth.model_fields_set
            )
        if route.auth and 80 in route.ports:
            message = "port 80 is plain HTTP, where no credential is ever sent; remove 80 or the route's auth"
            yield problem_at(tree, file, (*path, "ports"), message)
        if route.preset and route.methods:
            message = f"go with no preset, and this route is {route.preset}; remove one of them"
            yield problem_at(tree, file, (*path, "methods"), message, of_key=True)
        if route.auth and route.host.startswith("*."):
            message = "a credential goes to one host only; write the host name in full"
            yield problem_at(tree, file, (*path, "host"), message)


def _auth_problem(auth: AuthKeys) -> tuple[str, str] | None:
    """Check ``name`` against the scheme; gives the key and the sentence."""
    if auth.scheme in {"Bearer", "token"} and auth.name:
        return "name", f"goes with Basic, header and query only, and this is {auth.scheme}; remove it"
    if auth.scheme == "header":
        if not auth.name:
            return "name", "is missing; write the header that carries the credential, such as name: X-Api-Key"
        if not may_inject(auth.name):
            return "name", (
                f"{shown(auth.name)} is a header that egress writes or removes itself; "
                "write the one that carries the credential, such as X-Api-Key"
            )
    if auth.scheme == "query":
        if not auth.name:
            return "name", "is missing; write the parameter that carries the credential, such as name: key"
        if not _PARAMETER.fullmatch(auth.name):
            return "name", f"{shown(auth.name)} is no parameter's name; use letters, digits, '.', '_' and '-'"
    return None
