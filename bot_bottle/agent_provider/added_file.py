"""``provider.yaml``: what the operator says of a program that bot-bottle does not bring itself.

It is read as manifests are: known keys only, every mistake with its line, nothing that others could have
written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.agent_provider.plan import ProvisionFile
from bot_bottle.egress.routes import egress_manifest_routes
from bot_bottle.manifest import fields, schema
from bot_bottle.manifest.build import manifest_route
from bot_bottle.manifest.files import ManifestFolder
from bot_bottle.manifest.model import ManifestAgentProvider, ManifestBottle, ManifestEgress
from bot_bottle.manifest.problem import ManifestFileError
from bot_bottle.manifest.rules import route_problems
from bot_bottle.manifest.validate import problem_at, validate_keys
from bot_bottle.manifest.yaml_tree import parse_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.manifest.problem import Problem
    from bot_bottle.manifest.yaml_tree import YamlTree

FILE_NAME = "provider.yaml"

Delivery = Literal["argument", "stdin", "file"]


def _home_path(text: str) -> str:
    place = PurePosixPath(text)
    if not text or place.is_absolute() or ".." in place.parts or str(place) == "." or "\0" in text:
        raise ValueError("must be a path below the agent's home, such as .config/my-agent/settings.json")
    return str(place)


def _file_name(text: str) -> str:
    if "/" in text or text in {"", ".", ".."} or "\0" in text:
        raise ValueError(f"must be the name of a file beside {FILE_NAME}")
    return text


HomePath = Annotated[str, AfterValidator(_home_path)]
FileName = Annotated[str, AfterValidator(_file_name)]


class FileKeys(fields.Keys):
    """``files[]``: one file to place in the agent's home."""

    path: HomePath = Field(description="where, below the agent's home", examples=[".my-agent/settings.json"])
    source: FileName = Field(description=f"a text file beside {FILE_NAME}", examples=["settings.json"])


class ProviderKeys(fields.Keys):
    """A whole ``provider.yaml``."""

    argv: list[fields.Argument] = Field(
        min_length=1, description="program and arguments on a terminal", examples=[["my-agent"]]
    )
    headless: list[fields.Argument] = Field(
        default=[],
        min_length=1,
        description="program and arguments of an unattended run; none means argv",
        examples=[["my-agent", "--run"]],
    )
    resume: list[fields.Argument] = Field(
        default=[], description="arguments added to go on with the last session", examples=[["--continue"]]
    )
    prompt: Literal["argument", "stdin", "file"] = Field(
        default="argument",
        description="how a task is given: as the last argument, on stdin, or for {prompt_file} in headless",
        examples=["stdin"],
    )
    system_prompt: HomePath = Field(
        description="where the program looks for standing instructions", examples=[".my-agent/AGENTS.md"]
    )
    install: str = Field(
        default="", description="the command that installs it", examples=["npm i -g my-agent"]
    )
    skills: Annotated[str, AfterValidator(lambda text: _home_path(text) if text else "")] = Field(
        default="", description="the program's folder of skills", examples=[".my-agent/skills"]
    )
    env: dict[fields.EnvName, fields.EnvValue] = Field(default={}, examples=[{"NAME": "value"}])
    files: list[FileKeys] = Field(
        default=[], examples=[[{"path": ".my-agent/settings.json", "source": "settings.json"}]]
    )
    routes: list[schema.RouteKeys] = Field(default=[], examples=[[{"host": "api.example.com"}]])


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedFile:
    """A checked ``provider.yaml``; paths are absolute as seen in the bottle."""

    name: str
    argv: tuple[str, ...]
    headless: tuple[str, ...]
    resume: tuple[str, ...]
    prompt: Delivery
    system_prompt: str
    install: str
    skills: str
    env: dict[str, str]
    files: tuple[ProvisionFile, ...]
    routes: tuple[EgressRoute, ...]


def read_added_file(folder: Path) -> AddedFile:
    """Read the provider in ``folder``; raises ``ManifestError`` with all that is wrong and what to write."""
    own = ManifestFolder(path=folder)
    if fault := own.fault():
        raise fault
    path = folder / FILE_NAME
    file = str(path)
    tree = parse_yaml(own.read(path).removeprefix("\ufeff"), file=file)
    keys, problems = validate_keys(tree, ProviderKeys, file=file)
    if keys is not None:
        problems += route_problems(keys.routes, tree, file, ("routes",))
        problems += _delivery_problems(keys, tree, file)
    if keys is None or problems:
        raise ManifestFileError(problems)
    bottle = ManifestBottle(
        name=folder.name,
        path=path,
        agent_provider=ManifestAgentProvider(template=folder.name),
        egress=ManifestEgress(routes=tuple(manifest_route(route) for route in keys.routes)),
    )
    return AddedFile(
        name=folder.name,
        argv=tuple(keys.argv),
        headless=tuple(keys.headless or keys.argv),
        resume=tuple(keys.resume),
        prompt=keys.prompt,
        system_prompt=f"{AGENT_HOME}/{keys.system_prompt}",
        install=keys.install,
        skills=keys.skills,
        env=dict(keys.env),
        files=tuple(
            ProvisionFile(path=f"{AGENT_HOME}/{one.path}", content=own.read(folder / one.source).encode())
            for one in keys.files
        ),
        routes=egress_manifest_routes(bottle),
    )


def _delivery_problems(keys: ProviderKeys, tree: YamlTree, file: str) -> list[Problem]:
    named = any("{prompt_file}" in argument for argument in keys.headless or keys.argv)
    if (keys.prompt == "file") == named:
        return []
    place = ("headless",) if keys.headless else ("argv",)
    message = (
        "names no {prompt_file}, by which prompt: file gives the task; write it where the program takes one"
        if keys.prompt == "file"
        else "names {prompt_file}, which goes with prompt: file"
    )
    return [problem_at(tree, file, place, message)]
