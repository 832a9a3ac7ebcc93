"""Fetching and building images on the engine: one at a time, with progress, and found again by content."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.backend.docker.engine import engine_errors, explain
from bot_bottle.backend.docker.labels import make_labels
from bot_bottle.errors import LaunchError, UnavailableError, UsageError
from bot_bottle.files import make_private_dir
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from bot_bottle.backend.docker.context import Context
    from bot_bottle.backend.docker.engine import Engine
    from bot_bottle.backend.docker.progress import Progress

_STEP = re.compile(r"Step \d+/\d+ : |STEP \d+/\d+: ")
#: Docker's own build arguments for a proxy; they enter neither the image nor its history.
_PROXY_KEYS = {
    "httpProxy": ("HTTP_PROXY", "http_proxy"),
    "httpsProxy": ("HTTPS_PROXY", "https_proxy"),
    "ftpProxy": ("FTP_PROXY", "ftp_proxy"),
    "noProxy": ("NO_PROXY", "no_proxy"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """An image to make containers of. ``fresh`` says that it was built just now; ``size`` is in bytes."""

    id: str
    tag: str
    size: int
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build. ``what`` names it in sentences (``the sidecar's image``), ``key`` is what it depends on."""

    what: str
    repository: str
    key: str
    context: Context
    dockerfile: str = "Dockerfile"
    args: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_network: bool = False


def content_key(*parts: object) -> str:
    """Give a tag that stands for ``parts`` (text, numbers, mappings, sequences) and nothing else."""
    data = json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()
    return hashlib.sha256(data).hexdigest()[:40]


def find_image(engine: Engine, reference: str) -> tuple[str, int] | None:
    """Give the id and the size of an image that the engine holds; None if it has none of that name."""
    from docker import errors  # noqa: PLC0415 - the SDK is imported late

    with engine_errors(f"the image {legible(reference)} cannot be looked up", UnavailableError):
        try:
            found = engine.api.inspect_image(reference)
        except errors.NotFound:
            return None
    return str(found["Id"]), int(found.get("Size") or 0)


def built_image(engine: Engine, tag: str) -> BuiltImage | None:
    """Give an image of ours that is there already."""
    found = find_image(engine, tag)
    return None if found is None else BuiltImage(id=found[0], tag=tag, size=found[1], fresh=False)


def have_image(
    engine: Engine, reference: str, progress: Progress, *, instead: str, refresh: bool = False
) -> str:
    """Give the id of an image, fetched if the engine has none of that name (or with ``refresh``).

    Raises ``UnavailableError`` that ends with ``instead``, what to write to get by without it.
    """
    found = find_image(engine, reference)
    if found is not None and (not refresh or reference.startswith("sha256:")):
        return found[0]
    progress.step(f"fetching the image {reference}")
    try:
        _pull(engine, reference, progress)
    except UnavailableError:
        progress.close()
        if found is not None:  # it was only to be made newer
            progress.note(f"{reference} could not be made newer; the one that is there is taken")
            return found[0]
        raise UnavailableError(_not_to_be_had(reference, progress.last, instead)) from None
    found = find_image(engine, reference)
    if found is None:
        raise UnavailableError(_not_to_be_had(reference, "", instead))
    return found[0]


def require_no_triggers(engine: Engine, images: Mapping[str, str], where: str) -> None:
    """Raise ``UsageError`` where an image (its name and id) has ONBUILD lines, which nobody has read."""
    for name, image in images.items():
        with engine_errors(f"the image {legible(name)} could not be looked at"):
            config = engine.api.inspect_image(image).get("Config") or {}
        if config.get("OnBuild"):
            raise UsageError(
                f"{where}: builds on {legible(name)}, which has ONBUILD lines that would run unread; name "
                "another image, or write agent_provider.dockerfile"
            )


def _not_to_be_had(reference: str, said: str, instead: str) -> str:
    why = f" ({said})" if said else ""
    return f"the image {legible(reference)} is not on this engine and cannot be fetched{why}; {instead}"


def _pull(engine: Engine, reference: str, progress: Progress) -> None:
    """Fetch an image; raises ``UnavailableError``, the engine's words being the progress's last line."""
    import requests  # noqa: PLC0415
    from docker import errors  # noqa: PLC0415

    layers: dict[str, str] = {}
    try:
        for event in engine.api.pull(reference, stream=True, decode=True):
            if "error" in event:
                progress.detail(str(event["error"]))
                raise UnavailableError(str(event["error"]))
            status, layer = str(event.get("status", "")), str(event.get("id", ""))
            if layer and status:
                layers[layer] = status
                whole = sum(one in {"Pull complete", "Already exists"} for one in layers.values())
                progress.detail(f"{whole} of {len(layers)} parts")
    except (errors.DockerException, requests.RequestException) as error:
        progress.detail(explain(error))
        raise UnavailableError(explain(error)) from error


def ensure_built(engine: Engine, build: Build, progress: Progress) -> BuiltImage:
    """Build an image, unless one of the same key was built meanwhile; nothing is left of a failed build.

    Raises ``LaunchError`` with the step that failed; the last lines of the build are on stderr then.
    """
    tag = f"{build.repository}:{build.key}"
    with _lock(progress):
        present = built_image(engine, tag)
        if present is not None and not build.no_cache:
            return present
        image = _run_build(engine, build, tag, progress)
    found = find_image(engine, tag)
    if present is not None and found is not None and found[0] != present.id:
        _remove_replaced(engine, present.id)
    if found is None:
        raise LaunchError(f"{build.what} was built ({image}) but the engine does not know it as {tag}")
    return BuiltImage(id=found[0], tag=tag, size=found[1], fresh=True)


def _remove_replaced(engine: Engine, image: str) -> None:
    """Remove an image that has just lost its name; one that a bottle still uses stays."""
    from docker import errors  # noqa: PLC0415

    with contextlib.suppress(errors.APIError):
        engine.api.remove_image(image)


def _run_build(engine: Engine, build: Build, tag: str, progress: Progress) -> str:
    """Run one build to its end; gives what the engine called the result."""
    progress.step(f"building {build.what}")
    image, step = "", "its first step"
    with engine_errors(f"{build.what} could not be built"):
        events: Generator[dict[str, object]] = engine.api.build(
            fileobj=build.context.rewind(),
            custom_context=True,
            dockerfile=build.dockerfile,
            tag=tag,
            rm=True,
            forcerm=True,
            nocache=build.no_cache,
            buildargs={**proxy_args(), **build.args},
            labels=make_labels("image"),
            network_mode="none" if build.no_network else None,
            use_config_proxy=False,  # see proxy_args
            decode=True,
        )
        with contextlib.closing(events):
            for event in events:
                text = str(event.get("stream") or event.get("status") or "")
                if _STEP.match(text):
                    step = text.strip()
                    progress.note(step)
                else:
                    progress.detail(text)
                aux = event.get("aux")
                if isinstance(aux, dict) and aux.get("ID"):
                    image = str(aux["ID"])
                if "error" in event:
                    progress.detail(str(event["error"]))
                    said = progress.show_tail()
                    raise LaunchError(
                        f"{build.what} could not be built, at {_short(step)}: {_short(said, 300)}"
                    )
    progress.close()
    return image


def _short(text: str, limit: int = 80) -> str:
    clean = legible(" ".join(text.split()))
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"


def proxy_args() -> dict[str, str]:
    """Give the proxies of the docker client's config as build arguments, as the client program does.

    One that holds a password is left out: a build sees no credential.
    """
    from docker.utils.config import load_general_config  # noqa: PLC0415

    proxies = load_general_config().get("proxies")
    default = proxies.get("default") if isinstance(proxies, dict) else None
    if not isinstance(default, dict):
        return {}
    return {
        name: str(default[key])
        for key, names in _PROXY_KEYS.items()
        if default.get(key) and not _holds_password(str(default[key]))
        for name in names
    }


def _holds_password(url: str) -> bool:
    """Tell whether it may name a user: clients take it without a scheme too, and a token as the user."""
    return "@" in url


@contextlib.contextmanager
def _lock(progress: Progress) -> Iterator[None]:
    """Let one build run at a time: of twenty launches at once one builds, the others find it built."""
    make_private_dir(paths.cache_dir())
    path = paths.cache_dir() / "docker-build.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.step("waiting for another launch that builds")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
