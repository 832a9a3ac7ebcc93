"""Providers that the operator adds: a folder ``~/.bot-bottle/providers/NAME``, or a Python package.

Either is the operator's own word, as a bottle is; a repository cannot bring one.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.agent_provider.guide import standing
from bot_bottle.agent_provider.plan import AgentProvisionPlan, ProvisionFile
from bot_bottle.errors import ManifestError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.agent_provider.added_file import AddedFile
    from bot_bottle.agent_provider.plan import ProvisionRequest
    from bot_bottle.agent_provider.registry import Provider
    from bot_bottle.egress.routes import EgressRoute

#: The group of entry points in which a Python package names its providers.
ENTRY_POINTS = "bot_bottle.providers"

_FOLDER = f"{AGENT_HOME}/.bot-bottle"
_PROMPT_FILE = f"{_FOLDER}/prompt.md"
#: execve(2): one argument may not be longer (MAX_ARG_STRLEN, 32 pages).
_MAX_ARGUMENT = 128 * 1024 - 1

_OFFERED = (
    "TEMPLATE", "MANIFEST_KEYS", "REQUIRED_KEYS", "ALTERNATIVES", "INSTALL", "SKILLS_FOLDER", "ASKS",
    "provision",
)  # fmt: skip


def added_names() -> tuple[str, ...]:
    """List the names of the folders that are there, right or not; packages are asked for by name only."""
    from bot_bottle.manifest.values import NAME_PATTERN  # noqa: PLC0415 - reached from the manifest's own imports

    try:
        entries = sorted(entry.name for entry in paths.providers_dir().iterdir())
    except OSError:
        return ()
    return tuple(name for name in entries if NAME_PATTERN.fullmatch(name))


def find_added(name: str) -> Provider | None:
    """Give the provider ``name`` that the operator added, None where there is none.

    Raises ``ManifestError`` for a folder or a package that is wrong.
    """
    if name in added_names():
        from bot_bottle.agent_provider.added_file import read_added_file  # noqa: PLC0415 - brings pydantic

        return FolderProvider(read_added_file(paths.providers_dir() / name))
    return _from_package(name)


def dockerfile_of(name: str) -> str | None:
    """Give the text of the Dockerfile in an added provider's folder; None where there is none."""
    from bot_bottle.operator_config import read_operator_file  # noqa: PLC0415 - for images alone

    if name not in added_names():
        return None
    return read_operator_file(paths.providers_dir() / name / "Dockerfile", "the provider's Dockerfile")


def _from_package(name: str) -> Provider | None:
    from importlib.metadata import entry_points  # noqa: PLC0415 - looks through every installed package

    found = list(entry_points(group=ENTRY_POINTS, name=name))
    if not found:
        return None
    try:
        provider = found[0].load()
    except Exception as error:
        raise ManifestError(
            f"the provider {name} of {found[0].value} cannot be loaded ({type(error).__name__}: {error}); "
            "install or remove its package"
        ) from error
    missing = [attribute for attribute in _OFFERED if not hasattr(provider, attribute)]
    if missing or name != provider.TEMPLATE:
        lacks = f"it lacks {', '.join(missing)}" if missing else f"it calls itself {provider.TEMPLATE!r}"
        raise ManifestError(f"{found[0].value} is no provider for {name}: {lacks}")
    checked: Provider = provider
    return checked


class FolderProvider:
    """A provider out of its ``provider.yaml``; see :class:`bot_bottle.agent_provider.registry.Provider`."""

    def __init__(self, spec: AddedFile) -> None:
        """Offer what the file says."""
        self.spec = spec
        self.TEMPLATE = spec.name
        self.MANIFEST_KEYS: frozenset[str] = frozenset()
        self.REQUIRED_KEYS: Mapping[str, str] = MappingProxyType({})
        self.ALTERNATIVES: frozenset[str] = frozenset()
        self.INSTALL = spec.install
        self.SKILLS_FOLDER = spec.skills
        self.ASKS: Mapping[str, str] = MappingProxyType({})

    def provision(self, request: ProvisionRequest) -> AgentProvisionPlan:
        """Say what the program needs; raises ``UsageError`` for a headless run without a task."""
        spec = self.spec
        if request.headless and not request.prompt.strip():
            raise UsageError("a headless run needs a task: --prompt TEXT")
        files = [_text(spec.system_prompt, standing(request.agent_prompt))]
        argv = spec.headless if request.headless else spec.argv
        argv = (argv[0], *(argument.replace("{prompt_file}", _PROMPT_FILE) for argument in argv[1:]))
        argv = (*argv, *(spec.resume if request.resume else ()))
        if request.headless:
            files.append(_text(_PROMPT_FILE, request.prompt))
            argv = self._with_task(argv, request.prompt)
        if not request.resume:
            # A resumed session keeps what the program itself has written there since.
            files = [*spec.files, *files]
        stand_ins = {text for route in spec.routes if route.auth for text in route.auth.placeholders}
        return AgentProvisionPlan(
            template=spec.name,
            program=spec.argv[0],
            argv=argv,
            dirs=(_FOLDER,),
            files=tuple(files),
            guest_env=dict(spec.env),
            egress_routes=tuple(_owned(route, spec.name) for route in spec.routes),
            hidden_env_names=frozenset(name for name, value in spec.env.items() if value in stand_ins),
        )

    def _with_task(self, argv: tuple[str, ...], task: str) -> tuple[str, ...]:
        if self.spec.prompt == "file":
            return argv
        if self.spec.prompt == "stdin":
            return ("/bin/sh", "-c", f'exec "$@" < {_PROMPT_FILE}', argv[0], *argv)
        if len(task.encode()) > _MAX_ARGUMENT:
            raise UsageError(
                f"{self.spec.name} takes its task as an argument, and this one is longer than 128 KiB; put "
                "what is long in the workspace"
            )
        return ("/bin/sh", "-c", f'exec "$@" "$(cat {_PROMPT_FILE})"', argv[0], *argv)


def _owned(route: EgressRoute, name: str) -> EgressRoute:
    return replace(route, origin=f"agent_provider.{name}")


def _text(path: str, text: str) -> ProvisionFile:
    return ProvisionFile(path=path, content=f"{text}\n".encode())
