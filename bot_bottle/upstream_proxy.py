"""``[egress] proxy`` of the operator's config file: what is written there, and what the sidecar needs."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bot_bottle.egress.hosts import HostError, normalise_host
from bot_bottle.errors import UsageError
from bot_bottle.manifest.problem import shown
from bot_bottle.manifest.values import token_name
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import UpstreamProxy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_USER = re.compile(r"[!-9;-~]{1,200}")


def with_password(proxy: UpstreamProxy, env: Mapping[str, str]) -> UpstreamProxy:
    """Look the proxy's password up in ``env``; raises ``UsageError`` naming the variable, never its value."""
    ref = proxy.password_ref
    if not ref:
        return proxy
    if not env.get(ref):
        raise UsageError(
            f"not set (or empty) in the environment: {ref} (the password of the proxy in config.toml); "
            "export it before starting, or remove proxy_password_ref"
        )
    return replace(proxy, password=Secret(env[ref]))


def proxy_settings(
    url: str, *, user: str = "", password_ref: str = "", resolves: bool = False, bypass: Sequence[str] = ()
) -> UpstreamProxy:
    """Read the keys of a proxy; raises ``ValueError`` with a sentence that begins with the key's name.

    What may hold a password (the URL) is never repeated.
    """
    try:
        parts = urlsplit(url)
        host, port = normalise_host(parts.hostname or ""), parts.port or 3128
    except (ValueError, HostError) as error:
        raise ValueError(
            "proxy: is no URL of a proxy; write for example http://proxy.example.com:3128"
        ) from error
    if parts.scheme != "http":
        raise ValueError("proxy: is spoken to in plain HTTP only (CONNECT); write http://HOST:PORT")
    if "@" in parts.netloc:
        raise ValueError(
            "proxy: holds a user or password; write proxy_user, and the name of the password's variable in "
            "proxy_password_ref"
        )
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("proxy: holds more than a host and a port; write http://HOST:PORT")
    if user and not _USER.fullmatch(user):
        raise ValueError("proxy_user: is no user's name; it has no spaces and no colon")
    if password_ref:
        try:
            token_name(password_ref)
        except ValueError as error:
            raise ValueError(f"proxy_password_ref: {error}") from error
        if not user:
            raise ValueError("proxy_password_ref: goes with proxy_user; write both")
    return UpstreamProxy(
        host=host,
        port=port,
        user=user,
        password_ref=password_ref,
        resolves=resolves,
        bypass=tuple(_entry(text) for text in bypass),
    )


def _entry(text: str) -> str:
    if "/" in text:
        try:
            return str(ip_network(text))
        except ValueError as error:
            raise ValueError(
                f"no_proxy: {shown(text)} is no network; write for example 10.0.0.0/8"
            ) from error
    star = text.startswith(("*.", "."))
    try:
        name = normalise_host(text.lstrip("*").lstrip(".") if star else text)
    except HostError as error:
        raise ValueError(
            f"no_proxy: {shown(text)} is no host; write a name, *.name for every name below it, or a network"
        ) from error
    return f"*.{name}" if star else name
