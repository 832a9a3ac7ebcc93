"""Where the engine is: ``DOCKER_HOST``, then ``DOCKER_CONTEXT``, then the client's current context.

The same order as the client program's, so that both always mean the same engine.
"""

from __future__ import annotations

import ipaddress
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.errors import UnavailableError, UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker.context import Context
    from docker.tls import TLSConfig

DEFAULT_SOCKET = "/var/run/docker.sock"

_HOST, _CONTEXT = "DOCKER_HOST", "DOCKER_CONTEXT"
_TLS_VARIABLES = ("DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")

#: What the client program needs of the operator's environment; the rest, credentials among it, stays out.
_CLIENT_VARIABLES = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TERM",
    "DOCKER_CONFIG",
    "SSH_AUTH_SOCK",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One engine's address (``unix:///…``, ``tcp://…``, ``ssh://…``) and what chose it.

    ``context`` is the client's name for it, empty where a variable gave the address itself.
    """

    url: str
    chosen_by: str
    context: str = ""
    tls: TLSConfig | None = None

    @property
    def scheme(self) -> str:
        """Give the address's scheme in small letters."""
        return self.url.partition("://")[0].lower()

    @property
    def socket_path(self) -> str:
        """Give the path of a unix socket; empty for every other kind of address."""
        return self.url.partition("://")[2] if self.scheme == "unix" else ""

    def client_env(self, env: Mapping[str, str]) -> dict[str, str]:
        """Give the part of ``env`` with which the client program reaches this engine, and no more."""
        kept = {name: env[name] for name in _CLIENT_VARIABLES if name in env}
        kept["DOCKER_CLI_HINTS"] = "false"
        if self.context:
            return {**kept, _CONTEXT: self.context}
        tls = {name: env[name] for name in _TLS_VARIABLES if name in env} if self.tls else {}
        return {**kept, **tls, _HOST: self.url}


def find_endpoint(env: Mapping[str, str]) -> Endpoint:
    """Choose the engine; raises ``UsageError`` for a choice that cannot be meant, or must not be.

    A context's files lie in ``DOCKER_CONFIG`` of this process's environment, or else in ``~/.docker``.
    """
    endpoint = _from_variables(env) or _from_context(env)
    _require_private(endpoint)
    return endpoint


def _from_variables(env: Mapping[str, str]) -> Endpoint | None:
    from docker import errors  # noqa: PLC0415 - the SDK is for this backend alone
    from docker.utils import kwargs_from_env  # noqa: PLC0415

    if not env.get(_HOST):
        return None
    try:
        found = kwargs_from_env(dict(env))
    except errors.DockerException as error:
        raise UsageError(f"DOCKER_CERT_PATH or DOCKER_TLS_VERIFY is wrong: {error}") from error
    return Endpoint(url=_canonical(env[_HOST], _HOST), chosen_by=_HOST, tls=found.get("tls"))


def _from_context(env: Mapping[str, str]) -> Endpoint:
    from docker.context import ContextAPI  # noqa: PLC0415
    from docker.context.config import get_current_context_name  # noqa: PLC0415

    name, why = env.get(_CONTEXT, ""), _CONTEXT
    if not name:
        name, why = get_current_context_name(), "the docker client's current context"
    if not name or name == "default":
        return Endpoint(url=f"unix://{DEFAULT_SOCKET}", chosen_by="the default")
    try:
        # The SDK gives None for a name that it does not know, whatever its type says.
        context: Context | None = ContextAPI.get_context(name)
    except Exception as error:
        raise UsageError(
            f"the context {legible(name)!r} ({why}) cannot be read: {legible(str(error))}"
        ) from error
    host = context.Host if context is not None else None
    if context is None or not host:
        raise UsageError(
            f"there is no context {legible(name)!r} ({why}); those that exist: docker context ls"
        )
    return Endpoint(url=_canonical(host, why), chosen_by=why, context=name, tls=context.TLSConfig)


def _canonical(url: str, why: str) -> str:
    """Give a full address; the client takes ``/path`` and ``host:port`` for a socket and for TCP."""
    text = url.strip()
    if text.startswith("/"):
        text = f"unix://{text}"
    elif "://" not in text:
        text = f"tcp://{text}"
    scheme = text.partition("://")[0].lower()
    if scheme not in {"unix", "tcp", "http", "https", "ssh"}:
        raise UsageError(
            f"{why} names {legible(text)}; write unix:///PATH, ssh://USER@HOST or tcp://HOST:PORT"
        )
    return text


def _require_private(endpoint: Endpoint) -> None:
    """Refuse an engine whose connection others could read: the sidecar's credentials go through it."""
    if endpoint.scheme not in {"tcp", "http", "https"}:
        return
    try:
        host = urllib.parse.urlsplit(endpoint.url).hostname or ""
    except ValueError as error:
        raise UsageError(f"{endpoint.chosen_by} names {legible(endpoint.url)}: {error}") from error
    verified = endpoint.tls is not None and bool(endpoint.tls.verify)
    if verified or _is_loopback(host):
        return
    raise UsageError(
        f"the engine at {legible(endpoint.url)} ({endpoint.chosen_by}) is reached without verified TLS, "
        "and credentials would cross the network with it; "
        "use ssh://USER@HOST, or TLS with DOCKER_TLS_VERIFY=1"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def other_sockets(env: Mapping[str, str]) -> tuple[str, ...]:
    """Name the sockets of this user's own engines that exist, to say so where the chosen one does not."""
    runtime = env.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    candidates = (
        f"{runtime}/docker.sock",
        f"{runtime}/podman/podman.sock",
        "/run/podman/podman.sock",
        str(Path(env.get("HOME") or "/") / ".docker/run/docker.sock"),
    )
    return tuple(path for path in candidates if Path(path).is_socket() and os.access(path, os.W_OK))


def explain_no_engine(endpoint: Endpoint, cause: BaseException | None, env: Mapping[str, str]) -> str:
    """Say in one sentence why no engine answered, and what to do; ``cause`` is the first error underneath."""
    where = f"{legible(endpoint.url)} ({endpoint.chosen_by})"
    if isinstance(cause, PermissionError):
        return (
            f"this account may not use the engine's socket {where}; try: sudo usermod -aG docker "
            f"{env.get('USER') or '$USER'}, then log in again (that group is as good as root)"
        )
    if isinstance(cause, TimeoutError):
        return f"the engine at {where} does not answer; see that it runs and can be reached"
    if isinstance(cause, FileNotFoundError) or (isinstance(cause, ConnectionError) and endpoint.socket_path):
        others = other_sockets(env)
        if others:
            return f"no engine answers at {where}; one of yours may: export DOCKER_HOST=unix://{others[0]}"
        start = "" if endpoint.chosen_by != "the default" else "; install Docker or Podman, or start it: "
        command = "sudo systemctl start docker" if start else "; see that it runs, or name another"
        return f"no engine answers at {where}{start}{command}"
    detail = f": {legible(str(cause))[:300]}" if cause is not None and str(cause) else ""
    return f"no engine answers at {where}{detail}; see that it runs and can be reached"


def unavailable(endpoint: Endpoint, error: BaseException, env: Mapping[str, str]) -> UnavailableError:
    """Make the error for an engine that did not answer, from whatever the SDK raised."""
    return UnavailableError(explain_no_engine(endpoint, first_cause(error), env))


def first_cause(error: BaseException) -> BaseException | None:
    """Find the operating system's error below the SDK's, ``requests``' and urllib3's wrappers."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    deepest: BaseException | None = None
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        deepest = current
        # requests' own errors are OSErrors too, without a number.
        if isinstance(current, OSError) and (current.errno is not None or isinstance(current, TimeoutError)):
            return current
        waiting += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return deepest
