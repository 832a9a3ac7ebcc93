"""Rules between a bottle and what it extends, checked once every file by itself is right.

A clash is the mistake of the bottle that brings two settings together: it stands at that bottle's own line,
or at its ``extends`` where both were inherited, and names the other lines.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any

from bot_bottle.egress.paths import path_allowed
from bot_bottle.egress.routes import DEFAULT_PORTS, PRESET_METHODS
from bot_bottle.manifest.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot_bottle.manifest.layers import BottleFile, Layer, Said
    from bot_bottle.manifest.model import ManifestRoute, ManifestSource

_NO_BOUND = 1 << 62
_HOST_VAR = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def clashes(file: BottleFile, parents: Sequence[Layer], layer: Layer) -> Iterator[Problem]:
    """Find what is wrong between the settings of ``file`` and of all that it extends.

    ``parents`` are the effective layers of ``file.extends``, one each; ``layer`` has ``file`` laid over them.
    """
    yield from _credentials_in_env(file, parents, layer)
    yield from _repeated_labels(file, parents, layer)
    yield from _widened_routes(file, parents, layer)


def _credentials_in_env(file: BottleFile, parents: Sequence[Layer], layer: Layer) -> Iterator[Problem]:
    """Refuse to place in the bottle what egress injects, since the bottle would then hold the credential."""
    injected: dict[str, tuple[ManifestSource, str]] = {}
    if layer.provider:
        provider = layer.provider.value
        for ref, key in ((provider.auth_token, "auth_token"), (provider.api_key, "api_key")):
            if ref:
                injected[ref] = (layer.provider.source, key)
    for route in layer.routes.entries.values():
        if route.value.auth:
            injected.setdefault(route.value.auth.token_ref, (route.source, "auth.token_ref"))
    for name, entry in layer.env.entries.items():
        match = _HOST_VAR.fullmatch(entry.value)
        if match is None or match[1] not in injected:
            continue
        ref, (source, key) = match[1], injected[match[1]]
        if _is_own(entry.source, file):
            yield _at(
                entry.source,
                f"would put {ref} into the bottle, and egress already adds that credential outside it"
                f"{_elsewhere(source, file)}; remove this line",
            )
        elif _is_own(source, file):
            yield _at(
                source,
                f"has egress add {ref}, which env.{name} would put into the bottle ({entry.source}); "
                f"name another variable, or write env.{name} here with another value",
                key=f"{source.key}.{key}",
            )
        else:
            yield _at(
                _bringing(file, parents, entry.source, source),
                f"brings env.{name} ({entry.source}), which would put {ref} into the bottle, together with "
                f"what has egress add it ({source}); write env.{name} here with another value",
            )


def _repeated_labels(file: BottleFile, parents: Sequence[Layer], layer: Layer) -> Iterator[Problem]:
    labels: dict[str, tuple[str, ManifestSource]] = {}
    for host, remote in layer.remotes.entries.items():
        label, source = remote.value.name, remote.source
        other_host, other = labels.setdefault(label, (host, source))
        if other_host == host:
            continue
        if _is_own(source, file) or _is_own(other, file):
            if not _is_own(source, file):
                source, other, other_host = other, source, host
            yield _at(
                source,
                f"repeats {label} of git.remotes.{other_host}{_elsewhere(other, file)}; "
                "give each remote its own Name",
                key=f"{source.key}.Name",
            )
        else:
            yield _at(
                _bringing(file, parents, source, other),
                f"brings two remotes named {label} together ({other}, {source}); "
                f"write git.remotes.{host} here with another Name",
            )


def _widened_routes(file: BottleFile, parents: Sequence[Layer], layer: Layer) -> Iterator[Problem]:
    """Refuse an added route that silently opens more of a host than the one it takes the place of."""
    for host, route in layer.routes.entries.items():
        wider = ((older, keys) for older in route.over if (keys := _opened(route.value, older.value)))
        older, keys = next(wider, (None, ()))
        if older is None:
            continue
        more = f"opens more of {host} than {older.source}, whose route it replaces ({', '.join(keys)})"
        if _is_own(route.source, file):
            yield _at(
                route.source,
                f"{more}; open no more than that, or list every route under routes, which replaces all that "
                "is inherited",
            )
        else:
            yield _at(
                _bringing(file, parents, route.source, older.source),
                f"brings a route together with a narrower one: {route.source} {more}; "
                f"write the route for {host} that shall hold under add_routes here",
            )


def _opened(new: ManifestRoute, old: ManifestRoute) -> tuple[str, ...]:
    """Name the keys by which ``new`` opens what ``old``, a route of the same host, does not."""
    paths = new.path_allowlist and all(path_allowed(path, old.path_allowlist) for path in new.path_allowlist)
    networks = [ip_network(text) for text in old.pipelock.ssrf_ip_allowlist]
    grown = {
        "path_allowlist": bool(old.path_allowlist) and not paths,
        "methods": bool(_methods(old)) and not (_methods(new) and {*_methods(new)} <= {*_methods(old)}),
        "preset": old.preset == "git-read" != new.preset,
        "ports": not {*_ports(new)} <= {*_ports(old)},
        "auth": new.auth is not None and new.auth != old.auth,
        "strip_cookies": old.strip_cookies and not new.strip_cookies,
        "pipelock.tls_passthrough": new.pipelock.tls_passthrough and not old.pipelock.tls_passthrough,
        "pipelock.ssrf_ip_allowlist": not all(
            any(_within(text, network) for network in networks) for text in new.pipelock.ssrf_ip_allowlist
        ),
        "pipelock.detectors": not {*old.pipelock.detectors} <= {*new.pipelock.detectors},
        "pipelock.on_match": new.pipelock.on_match not in {"block", old.pipelock.on_match},
        "pipelock.on_opaque": _lets_pass(new.pipelock.on_opaque) > _lets_pass(old.pipelock.on_opaque),
        "pipelock.responses": _LEVELS.index(new.pipelock.responses) < _LEVELS.index(old.pipelock.responses),
        "pipelock.max_body": (new.pipelock.max_body or _NO_BOUND) > (old.pipelock.max_body or _NO_BOUND),
    }
    return tuple(key for key, is_grown in grown.items() if is_grown)


def _methods(route: ManifestRoute) -> tuple[str, ...]:
    return PRESET_METHODS[route.preset] if route.preset else tuple(route.methods)


#: What ``responses`` says, the strictest last.
_LEVELS = ("off", "warn", "block")


def _lets_pass(on_opaque: str | None) -> int:
    """Rank the words of ``on_opaque`` by how much they let pass."""
    return {"deny": 0, None: 1, "allow": 2}[on_opaque]


def _ports(route: ManifestRoute) -> tuple[int, ...]:
    """Give the ports a route opens; the same rule as ``EgressRoute.effective_ports``."""
    return route.ports or ((443,) if route.auth else DEFAULT_PORTS)


def _within(text: str, outer: IPv4Network | IPv6Network) -> bool:
    inner = ip_network(text)
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def _is_own(source: ManifestSource, file: BottleFile) -> bool:
    return source.path == file.path


def _elsewhere(source: ManifestSource, file: BottleFile) -> str:
    return "" if _is_own(source, file) else f" ({source})"


def _bringing(file: BottleFile, parents: Sequence[Layer], *sources: ManifestSource) -> ManifestSource:
    """Give the place in ``extends`` of the parent with which the last of ``sources`` came in."""
    firsts = [
        next(index for index, layer in enumerate(parents) if source in _sources(layer)) for source in sources
    ]
    return file.extends[max(firsts)].source


def _sources(layer: Layer) -> set[ManifestSource]:
    said: list[Said[Any]] = [
        *layer.env.entries.values(),
        *layer.routes.entries.values(),
        *layer.remotes.entries.values(),
    ]
    said += [older for route in layer.routes.entries.values() for older in route.over]
    return {entry.source for entry in (*said, *([layer.provider] if layer.provider else ()))}


def _at(source: ManifestSource, message: str, *, key: str = "") -> Problem:
    return Problem(
        file=str(source.path),
        line=source.line,
        column=source.column,
        key=key or source.key,
        message=message,
    )
