"""The engine: found as the client program finds it, spoken to through the SDK, explained in sentences."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from typing import TYPE_CHECKING, Self

from bot_bottle import extras
from bot_bottle.backend.docker import endpoint as endpoints
from bot_bottle.backend.docker.facts import EngineFacts, read_facts
from bot_bottle.backend.docker.ssh import SshBridge, parse_ssh
from bot_bottle.errors import BotBottleError, LaunchError, UnavailableError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from docker import APIClient

    from bot_bottle.backend.docker.endpoint import Endpoint

#: Docker 20.10 and Podman 4: the first with every option that a bottle needs.
_MIN_API = (1, 41)
#: An engine that is there answers its version at once.
_HELLO_SECONDS = 15
_CALL_SECONDS = 120


class Engine:
    """A live engine. Close it, or use it as a context manager."""

    def __init__(
        self, api: APIClient, endpoint: Endpoint, facts: EngineFacts, bridge: SshBridge | None, base_url: str
    ) -> None:
        self.api = api
        self.endpoint = endpoint
        self.facts = facts
        self._bridge = bridge
        self._base_url = base_url

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Name the runtimes that the engine offers."""
        return tuple(runtime.name for runtime in self.facts.runtimes)

    @property
    def describe(self) -> str:
        """Say in a few words which engine this is and what chose it."""
        facts = self.facts
        what = f"{facts.product} {facts.version}, {facts.os_type}/{facts.architecture}"
        return legible(f"{what} at {self.endpoint.url} ({self.endpoint.chosen_by})")

    def client(self) -> APIClient:
        """Give one more client of the same engine, for another thread; the caller closes it."""
        return _client(self._base_url, self.endpoint, self.facts.api_version)

    def client_env(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """Give the environment in which the client program ``docker`` reaches this same engine."""
        return self.endpoint.client_env(os.environ if env is None else env)

    def close(self) -> None:
        """Let go of every connection; safe to call again."""
        self.api.close()
        if self._bridge is not None:
            self._bridge.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def connect(env: Mapping[str, str] | None = None) -> Engine:
    """Reach the operator's engine and learn what it can.

    ``env`` is the operator's environment (``DOCKER_HOST``, ``DOCKER_CONTEXT``, TLS variables). Raises
    ``UsageError`` for a wrong choice of engine and ``UnavailableError``, one sentence with the remedy, where
    the SDK is missing, nothing answers, this account may not, or the engine is too old or not Linux.
    """
    env = os.environ if env is None else env
    _require_sdk()
    endpoint = endpoints.find_endpoint(env)
    bridge: SshBridge | None = None
    base_url = endpoint.url
    if endpoint.scheme == "ssh":
        bridge = SshBridge(parse_ssh(endpoint.url, endpoint.chosen_by))
        base_url = f"unix://{bridge.path}"
    try:
        facts = _ask(base_url, endpoint, bridge, env)
        return Engine(_client(base_url, endpoint, facts.api_version), endpoint, facts, bridge, base_url)
    except BaseException:
        if bridge is not None:
            bridge.close()
        raise


def _require_sdk() -> None:
    try:
        import docker  # noqa: F401, PLC0415 - only this backend pays for it
    except ImportError as error:
        raise UnavailableError(
            "the docker backend needs the Docker SDK for Python, which is not installed; "
            f"install it with: {extras.install_command('docker')}"
        ) from error


def _client(base_url: str, endpoint: Endpoint, version: str, timeout: int = _CALL_SECONDS) -> APIClient:
    from docker import APIClient  # noqa: PLC0415

    tls = endpoint.tls if not base_url.startswith("unix://") and endpoint.tls is not None else False
    client = APIClient(base_url=base_url, version=version, timeout=timeout, tls=tls)
    # Else requests would send a proxy of the operator's, or a password from ~/.netrc, our conversation.
    client.trust_env = False
    return client


def _ask(base_url: str, endpoint: Endpoint, bridge: SshBridge | None, env: Mapping[str, str]) -> EngineFacts:
    """Learn the engine's facts; every way in which it may not answer becomes one sentence."""
    import requests  # noqa: PLC0415
    from docker import errors  # noqa: PLC0415

    try:
        if endpoint.socket_path:
            _knock(endpoint.socket_path)
        # Any version serves to ask for the version; no request is made before.
        hello = _client(base_url, endpoint, ".".join(map(str, _MIN_API)), _HELLO_SECONDS)
        with contextlib.closing(hello):
            version = hello.version(api_version=False)
            facts = read_facts(version, {})
            _require_modern(facts, endpoint)
            with contextlib.closing(_client(base_url, endpoint, facts.api_version, _HELLO_SECONDS)) as client:
                facts = read_facts(version, client.info())
    except (errors.DockerException, requests.RequestException, OSError, ValueError) as error:
        said = bridge.words() if bridge is not None else ""
        if said:
            raise UnavailableError(
                f"no engine answers at {legible(endpoint.url)} ({endpoint.chosen_by}); ssh says: {said}"
            ) from error
        raise endpoints.unavailable(endpoint, error, env) from error
    if facts.os_type != "linux":
        raise UnavailableError(
            f"the engine at {legible(endpoint.url)} runs {legible(facts.os_type) or 'unknown'} "
            "containers; switch it to Linux containers"
        )
    return facts


def _knock(path: str) -> None:
    """Raise the system's own ``OSError`` where nobody listens; the SDK leaves a socket open there."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_HELLO_SECONDS)
        probe.connect(path)


def _require_modern(facts: EngineFacts, endpoint: Endpoint) -> None:
    match = re.fullmatch(r"(\d+)\.(\d+)", facts.api_version)
    if match is None or (int(match[1]), int(match[2])) < _MIN_API:
        raise UnavailableError(
            f"the engine at {legible(endpoint.url)} is too old "
            f"(API {legible(facts.api_version) or 'none'}); "
            "a bottle needs Docker 20.10, Podman 4.0 or later"
        )


@contextlib.contextmanager
def engine_errors(what: str, kind: type[BotBottleError] = LaunchError) -> Iterator[None]:
    """Turn what the SDK raises inside into one ``kind`` that begins with ``what``.

    ``what`` is a sentence's beginning (``the sidecar's container could not be started``).
    """
    import requests  # noqa: PLC0415
    from docker import errors  # noqa: PLC0415

    try:
        yield
    except (errors.DockerException, requests.RequestException) as error:
        raise kind(f"{what}: {explain(error)}") from error


def explain(error: BaseException) -> str:
    """Give an engine's own words, in one printable line, or what the connection broke on."""
    from docker import errors  # noqa: PLC0415

    cause = endpoints.first_cause(error)
    if isinstance(error, errors.APIError) and error.explanation:
        text = str(error.explanation)
    elif isinstance(error, errors.DockerException) and not isinstance(cause, OSError):
        text = str(error)  # the SDK's own: a credential helper that fails, a wrong name
    else:
        why = getattr(cause, "strerror", None) or str(cause or "")
        text = f"the engine does not answer ({why})" if why else "the engine does not answer"
    return legible(" ".join(text.split()))[:600]
