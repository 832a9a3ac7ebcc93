"""The agent's image: the provider's Dockerfile or the operator's, with one finishing layer of ours."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.agent_provider.dockerfiles import provider_dockerfile
from bot_bottle.backend.docker import builds
from bot_bottle.backend.docker.asked import check_asked
from bot_bottle.backend.docker.context import Context, Entry, chosen_entries
from bot_bottle.backend.docker.dockerfile import (
    Instruction,
    base_images,
    declares,
    needs_context,
    parse_dockerfile,
)
from bot_bottle.errors import ManifestError, UsageError
from bot_bottle.manifest.problem import shown
from bot_bottle.operator_config import read_operator_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.backend.docker.builds import BuiltImage
    from bot_bottle.backend.docker.engine import Engine
    from bot_bottle.backend.docker.progress import Progress
    from bot_bottle.manifest.model import ManifestBottle
    from bot_bottle.operator_config import DockerConfig

REPOSITORY = "bot-bottle-agent"
_BASE_ARG = "BASE_IMAGE"
_OURS = ".bot-bottle.Dockerfile"
_CA_REPOSITORY = "bot-bottle-base"
_CA_FOLDER = "/usr/local/share/ca-certificates"
_PEM_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSource:
    """What an agent's image is built from.

    ``text`` is the Dockerfile, ``where`` its name in sentences, ``own`` whether it is the operator's.
    ``folder`` is what its COPY and ADD read from, None where it has none of them. ``asked`` says that an
    agent may have asked for it.
    """

    text: str = field(repr=False)
    where: str
    own: bool = False
    folder: Path | None = None
    asked: bool = False

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """Give the Dockerfile's instructions."""
        return parse_dockerfile(self.text)


def agent_source(bottle: ManifestBottle, state_dir: Path | None = None) -> AgentSource:
    """Choose the Dockerfile: the one in the bottle's state folder, the manifest's, or the provider's.

    Raises ``UsageError`` (``ManifestError``) where it is missing, others could have written it, or its folder
    must not be sent to an engine.
    """
    override = state_dir / "Dockerfile" if state_dir is not None else None
    if override is not None and override.is_symlink():
        raise UsageError(f"{override}: is a link; put the Dockerfile itself there")
    if override is not None and override.exists():
        source = _own_source(override, "the bottle's own Dockerfile")
        check_asked(source.text, str(override))
        return replace(source, asked=True)
    provider = bottle.agent_provider
    if provider.dockerfile:
        return _own_source(Path(provider.dockerfile).expanduser(), "agent_provider.dockerfile")
    text, where = provider_dockerfile(provider.template)
    return AgentSource(text=text, where=where)


def _own_source(path: Path, what: str) -> AgentSource:
    text = read_operator_file(path, what)
    if text is None:
        raise ManifestError(
            f"agent_provider.dockerfile: there is no {shown(str(path), 400)}; write the path of a "
            "Dockerfile, or remove the key to use the provider's own"
        )
    instructions = parse_dockerfile(text)
    words = [one.word for one in instructions]
    if "FROM" not in words or words[0] not in {"FROM", "ARG"}:
        raise UsageError(f"{path}: is no Dockerfile; it must begin with FROM, or with ARG before it")
    folder = None
    if needs_context(instructions):
        folder = path.resolve().parent
        _require_own_folder(folder, path)
    return AgentSource(text=text, where=str(path), own=True, folder=folder)


def _require_own_folder(folder: Path, path: Path) -> None:
    """Refuse to send what holds credentials of the operator's: their home, and bot-bottle's own folder."""
    ours, home = paths.home_dir().resolve(), Path.home().resolve()
    if (
        folder == home
        or folder in home.parents
        or folder in ours.parents
        or ours in (folder, *folder.parents)
    ):
        raise UsageError(
            f"{path}: has COPY or ADD, so its folder would be sent to the engine, and {folder} holds "
            "more than an image may; put the Dockerfile and what it copies into a folder of their own"
        )


def ensure_agent_image(
    engine: Engine, source: AgentSource, config: DockerConfig, progress: Progress, *, refresh: bool = False
) -> BuiltImage:
    """Give an agent's image, built if this very one is not there yet (or with ``refresh``).

    Raises ``UnavailableError`` where a base image is not to be had, ``UsageError`` where the context cannot
    be read, ``LaunchError`` where the build fails.
    """
    instructions = source.instructions
    args = _base_argument(engine, instructions, config, progress, refresh=refresh)
    bases = {
        name: builds.have_image(
            engine, name, progress, instead=_instead(source, name, args), refresh=refresh and name not in args
        )
        for name in base_images(instructions, args)
    }
    if source.asked:
        builds.require_no_triggers(engine, bases, source.where)
    with Context(_entries(source)) as context:
        key = builds.content_key("agent", 1, context.digest, args, bases)
        present = None if refresh else builds.built_image(engine, f"{REPOSITORY}:{key}")
        if present is not None:
            return present
        build = builds.Build(
            what=f"the agent's image ({source.where})",
            repository=REPOSITORY,
            key=key,
            context=context,
            dockerfile=_OURS,
            args=args,
            no_cache=refresh,
        )
        return builds.ensure_built(engine, build, progress)


def _instead(source: AgentSource, name: str, args: dict[str, str]) -> str:
    if source.own and args.get(_BASE_ARG) != name:
        return f"load one with docker load, or name another in {source.where}"
    return "load one with docker load, or name one that is to be had as docker.base_image in config.toml"


def _base_argument(
    engine: Engine,
    instructions: tuple[Instruction, ...],
    config: DockerConfig,
    progress: Progress,
    *,
    refresh: bool,
) -> dict[str, str]:
    """Give BASE_IMAGE, where the Dockerfile has it and the operator has something to say about it."""
    if not declares(instructions, _BASE_ARG):
        return {}
    args = {_BASE_ARG: config.base_image} if config.base_image else {}
    if not config.build_ca_pem:
        return args
    found = base_images(instructions, args)
    if not found:
        return args
    # The first FROM is the one that BASE_IMAGE stands in.
    return {_BASE_ARG: _with_ca(engine, found[0], config, progress, refresh=refresh)}


def _with_ca(engine: Engine, base: str, config: DockerConfig, progress: Progress, *, refresh: bool) -> str:
    """Give the tag of ``base`` with the operator's CA trusted in it, for builds behind a proxy that inspects.

    No bottle trusts it: there the whole folder of roots is replaced, and the variables are set anew.
    """
    instead = "load one with docker load, or name one that is to be had as docker.base_image in config.toml"
    base_id = builds.have_image(engine, base, progress, instead=instead, refresh=refresh)
    with Context(_ca_entries(config.build_ca_pem)) as context:
        build = builds.Build(
            what=f"{base} with docker.build_ca trusted",
            repository=_CA_REPOSITORY,
            key=builds.content_key("ca", 1, context.digest, base_id),
            context=context,
            args={_BASE_ARG: base},
            no_network=True,
        )
        return builds.ensure_built(engine, build, progress).tag


def _ca_entries(pem: str) -> Iterator[Entry]:
    blocks = _PEM_BLOCK.findall(pem)
    for number, block in enumerate(blocks, 1):
        yield Entry(name=f"ca{_CA_FOLDER}/bot-bottle-build-{number}.crt", data=f"{block}\n".encode())
    yield Entry(name="ca/usr/local/share/bot-bottle-build-ca.pem", data=("\n".join(blocks) + "\n").encode())
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    one_file = "/usr/local/share/bot-bottle-build-ca.pem"
    # A base without a bundle gets one, this CA in it, when its build installs ca-certificates.
    script = f"if [ -s {bundle} ]; then cat {one_file} >>{bundle}; fi"
    lines = [
        f"ARG {_BASE_ARG}",
        f"FROM ${{{_BASE_ARG}}}",
        "USER 0:0",
        "COPY ca/ /",
        f"RUN {_exec_form(script)}",
        f"ENV NODE_EXTRA_CA_CERTS={one_file} PIP_CERT={bundle} REQUESTS_CA_BUNDLE={bundle}",
    ]
    yield Entry(name="Dockerfile", data=("\n".join(lines) + "\n").encode())


def _entries(source: AgentSource) -> Iterator[Entry]:
    yield Entry(name=_OURS, data=finished(source.text).encode())
    if source.folder is not None:
        names = (name for name in _context_names(source.folder) if name != _OURS)
        yield from chosen_entries(source.folder, names)


def _context_names(folder: Path) -> list[str]:
    """List what ``.dockerignore`` leaves of a folder, by Docker's own rules."""
    from docker.utils.build import exclude_paths  # noqa: PLC0415 - the SDK is imported late

    ignore = folder / ".dockerignore"
    try:
        lines = ignore.read_text("utf-8").splitlines() if ignore.is_file() else []
        patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        return sorted(exclude_paths(str(folder), patterns))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{folder}: cannot be read to build from ({error})") from error


def finished(text: str) -> str:
    """Give a Dockerfile with the finishing layer behind it; whatever its shell or user was, ours runs."""
    folder = Path(__file__).parent.parent
    script = "".join((folder / name).read_text("utf-8") for name in ("account.sh", "finish.sh"))
    lines = [
        "USER 0:0",
        f"RUN {_exec_form(script)}",
        "HEALTHCHECK NONE",
        "ENTRYPOINT []",
        "CMD []",
        "WORKDIR /home/agent/workspace",
        "USER 1000:1000",
    ]
    return text.rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"


def _exec_form(script: str) -> str:
    return json.dumps(["/bin/sh", "-euc", script], ensure_ascii=True)
