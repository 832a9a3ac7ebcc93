"""The sidecar's image: built from this very installation, for whatever Python the base image brings.

Its libraries come from outside the build (see :mod:`.libraries`), so that the build itself needs no package
index and sees none of pip's settings.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import bot_bottle
from bot_bottle.backend.docker import builds
from bot_bottle.backend.docker.context import Context, Entry, entries_digest, folder_entries
from bot_bottle.backend.docker.engine import engine_errors, explain
from bot_bottle.backend.docker.labels import make_labels
from bot_bottle.backend.docker.libraries import BaseFacts, library_entries, library_pins
from bot_bottle.backend.docker.streams import STDOUT, Multiplexed
from bot_bottle.errors import UnavailableError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.backend.docker.builds import BuiltImage
    from bot_bottle.backend.docker.engine import Engine
    from bot_bottle.backend.docker.progress import Progress
    from bot_bottle.operator_config import DockerConfig

REPOSITORY = "bot-bottle-sidecar"
DEFAULT_BASE = "python:3.12-slim-bookworm"
_INSTEAD = (
    "load one with docker load, or name one that is to be had, with Python 3.11 or later, as "
    "docker.sidecar_base_image in config.toml"
)

#: The account that the sidecar runs as inside, by convention "nonroot"; the agent's is another.
SIDECAR_UID = 65532

#: Where the two trees that the Dockerfile copies lie in its context.
_FIRST, _SECOND = "first/opt/bot-bottle/build", "second/opt/bot-bottle/lib"

#: Rooms of this package that no sidecar enters.
_NOT_THE_SIDECARS = frozenset({"__pycache__", "backend", "cli", "demo", "agent_provider"})
_MIN_PYTHON = (3, 11)

_PROBE = """
import json, os, platform, shutil, sys
libc, version = platform.libc_ver()
whole = all(map(shutil.which, ("git", "ssh"))) and os.path.exists("/etc/ssl/certs/ca-certificates.crt")
print(json.dumps({"python": sys.version_info[:2], "machine": platform.machine(), "libc": libc,
                  "libc_version": version, "whole": whole}))
"""


def ensure_sidecar_image(
    engine: Engine, config: DockerConfig, progress: Progress, *, refresh: bool = False
) -> BuiltImage:
    """Give the sidecar's image, built if this installation's is not there yet (or with ``refresh``).

    Raises ``UnavailableError`` where the base image or a library is not to be had, and ``LaunchError`` where
    the build fails.
    """
    base = config.sidecar_base_image or DEFAULT_BASE
    base_id = builds.have_image(engine, base, progress, instead=_INSTEAD, refresh=refresh)
    pins = library_pins()
    own_entries = list(_own_entries(config))
    key = builds.content_key("sidecar", 2, entries_digest(own_entries), pins, base_id)
    if not refresh:
        present = builds.built_image(engine, f"{REPOSITORY}:{key}")
        if present is not None:
            return present
    facts = _look_into(engine, base, base_id)
    with tempfile.TemporaryDirectory(prefix="bot-bottle-wheels-") as folder:
        libraries = library_entries(pins, facts, Path(folder), progress, under=_SECOND)
        with Context([*own_entries, *libraries]) as context:
            build = builds.Build(
                what="the sidecar's image",
                repository=REPOSITORY,
                key=key,
                context=context,
                args={"BASE_IMAGE": base},
                no_cache=refresh,
                no_network=facts.whole,
            )
            return builds.ensure_built(engine, build, progress)


def _own_entries(config: DockerConfig) -> Iterator[Entry]:
    """List the context without the libraries: this package, the Dockerfile and its scripts."""
    here = Path(__file__).parent
    yield Entry(name="Dockerfile", data=here.joinpath("sidecar.Dockerfile").read_bytes())
    yield Entry(name=f"{_FIRST}/ca.pem", data=config.build_ca_pem.encode())
    for name in ("packages.sh", "prepare.sh", "settle.sh"):
        yield Entry(name=f"{_FIRST}/{name}", data=here.joinpath("sidecar_build", name).read_bytes())
    package = Path(bot_bottle.__file__).parent
    for entry in folder_entries(package, under=f"{_SECOND}/bot_bottle", skip=_NOT_THE_SIDECARS):
        # Read once: what the key stands for and what is built must be the same.
        yield entry if entry.source is None else replace(entry, source=None, data=entry.source.read_bytes())


def _look_into(engine: Engine, base: str, base_id: str) -> BaseFacts:
    """Ask the base image's own Python what it is; raises ``UnavailableError`` for one that will not do."""
    from docker import errors  # noqa: PLC0415 - the SDK is imported late
    from docker.types import LogConfig  # noqa: PLC0415

    api = engine.api
    with engine_errors(f"the image {legible(base)} cannot be looked into", UnavailableError):
        host = api.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=64,
            log_config=LogConfig(type="none"),
        )
        container = api.create_container(
            base_id,
            entrypoint=["python3", "-I", "-c", _PROBE],
            command=[],
            host_config=host,
            labels=make_labels("probe"),
            use_config_proxy=False,
        )
        try:
            # The SDK's own attach leaves its connection open.
            wanted = dict.fromkeys(("stdout", "stderr", "stream"), 1)
            with Multiplexed(api.attach_socket(container["Id"], wanted)) as streams:
                try:
                    api.start(container)
                except errors.APIError as error:
                    raise UnavailableError(
                        f"the image {legible(base)} has no Python to run ({explain(error)}); {_INSTEAD}"
                    ) from error
                said = b"".join(data for stream, data in streams if stream == STDOUT)
        finally:
            api.remove_container(container, force=True, v=True)
    return read_base_facts(said, base)


def read_base_facts(said: bytes, base: str) -> BaseFacts:
    """Read what the probe printed; raises ``UnavailableError`` for a base that the sidecar cannot run on."""
    try:
        data = json.loads(said)
        python, machine = (int(data["python"][0]), int(data["python"][1])), str(data["machine"])
        libc = re.match(r"(\d+)\.(\d+)", str(data["libc_version"]))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UnavailableError(
            f"the image {legible(base)} has a Python that does not work; {_INSTEAD}"
        ) from error
    if python < _MIN_PYTHON:
        raise UnavailableError(
            f"the image {legible(base)} has Python {python[0]}.{python[1]}, which is too old; {_INSTEAD}"
        )
    if data.get("libc") != "glibc" or libc is None:
        raise UnavailableError(
            f"the image {legible(base)} has another C library than glibc, which the sidecar's libraries "
            f"are built for; {_INSTEAD}"
        )
    glibc = int(libc[1]), int(libc[2])
    return BaseFacts(python=python, machine=machine, glibc=glibc, whole=data.get("whole") is True)
