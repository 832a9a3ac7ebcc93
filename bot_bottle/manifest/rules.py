"""Rules that concern more than one key of a bottle, checked once each key by itself is right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bot_bottle.agent_provider.registry import DEFAULT_TEMPLATE, check_provider_keys
from bot_bottle.manifest.validate import problem_at
from bot_bottle.sidecar.config import EGRESS_LOCAL_HOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot_bottle.manifest.problem import KeyPath, Problem
    from bot_bottle.manifest.schema import BottleKeys, RouteKeys
    from bot_bottle.manifest.yaml_tree import YamlTree

_HOST_VAR = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


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
    problems += route_problems(keys.egress.routes, tree, file, ("egress", "routes"))
    problems += _credentials_in_env(keys, tree, file)
    return problems


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
        if route.auth and 80 in route.ports:
            message = "port 80 is plain HTTP, where no credential is ever sent; remove 80 or the route's auth"
            yield problem_at(tree, file, (*path, "ports"), message)
        if route.auth and route.host.startswith("*."):
            message = "a credential goes to one host only; write the host name in full"
            yield problem_at(tree, file, (*path, "host"), message)


def _credentials_in_env(keys: BottleKeys, tree: YamlTree, file: str) -> Iterator[Problem]:
    """Refuse to place in the bottle what egress injects, since the bottle would then hold the credential."""
    injected = {route.auth.token_ref for route in keys.egress.routes if route.auth}
    if keys.agent_provider.auth_token:
        injected.add(keys.agent_provider.auth_token)
    for name, value in keys.env.items():
        match = _HOST_VAR.fullmatch(value)
        if match and match[1] in injected:
            message = (
                f"would put {match[1]} into the bottle, and egress already adds that credential outside it; "
                "remove this line"
            )
            yield problem_at(tree, file, ("env", name), message)
