"""Everything that is wrong with what is declared, at once and without launching anything."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.agent_provider.common import agent_skills
from bot_bottle.config_check import config_problems
from bot_bottle.errors import ManifestError, UsageError
from bot_bottle.guard_notes import guard_notes
from bot_bottle.manifest.loader import REPOSITORY_FOLDER, load_manifest, load_routes_file
from bot_bottle.manifest.problem import ManifestFileError, Problem
from bot_bottle.print_util import asking_notes, env_notes
from bot_bottle.source_notes import source_notes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.manifest.model import Manifest, ManifestAgent, ManifestBottle

_ROUTES_SUFFIXES = frozenset({".yaml", ".yml"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was looked at (files) and what is wrong, in the order of files and lines."""

    files: tuple[Path, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()


def check_declared(cwd: Path) -> Report:
    """Check what a start in ``cwd`` would read: the operator's files and config, the repository's agents."""
    report, config = _report(load_manifest(cwd), None), paths.config_file()
    if not os.path.lexists(config):
        return report
    from bot_bottle.backend.registry import known_backend_names  # noqa: PLC0415 - for its names alone

    problems = (*report.problems, *config_problems(config, known_backend_names()))
    return replace(report, files=(*report.files, config), problems=problems)


def check_path(path: Path) -> Report:
    """Check one file or folder.

    A folder holds ``bottles/`` and ``agents/``, or is one of them, or is a repository; a file is a bottle or
    an agent by the folder it lies in, or a routes file (``.yaml``). Raises ``UsageError`` for anything else.
    """
    path = Path(os.path.normpath(path.absolute()))
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    if path.is_file() and path.suffix in _ROUTES_SUFFIXES:
        return _routes_report(path)
    kind_folder = path if path.is_dir() else path.parent
    if kind_folder.name in {"bottles", "agents"} and (path.is_dir() or path.suffix == ".md"):
        report = _report(_manifest_at(kind_folder.parent), path)
        if path.is_file() and not report.files:
            raise UsageError(
                f"{path}: is not read by any start: a repository has agents and no bottles, an agent of "
                "yours goes before its own, a file name is small letters, digits and hyphens after a letter"
            )
        return report
    if path.is_dir() and any((path / kind).is_dir() for kind in ("bottles", "agents")):
        return _report(_manifest_at(path), path)
    if path.is_dir() and (path / REPOSITORY_FOLDER).is_dir():
        return _report(load_manifest(path), path)
    raise UsageError(
        f"{path}: holds no manifest; name a folder with bottles/ and agents/ in it, or a file NAME.md in one "
        "of those, or a routes file ending in .yaml"
    )


def check_draft(path: Path, text: str, cwd: Path) -> tuple[Problem, ...]:
    """Say what would be wrong if ``text`` stood in the operator's file ``path``.

    That is everything in that file, and whatever would newly be wrong in others (a bottle that extends it).
    What is wrong there already is known by its place: its sentence may name a line that the draft moves.
    """
    now = {_place(problem) for problem in _report(load_manifest(cwd), None).problems}
    then = _report(load_manifest(cwd, instead={path: text}), None).problems
    return tuple(problem for problem in then if problem.file == str(path) or _place(problem) not in now)


def _place(problem: Problem) -> tuple[str, int, int, str]:
    return problem.file, problem.line, problem.column, problem.key


def _manifest_at(base: Path) -> Manifest:
    """Read a folder as the operator's own; a repository's beside the operator's, whose bottles it names."""
    own = os.path.realpath(base) == os.path.realpath(paths.home_dir())
    if base.name == REPOSITORY_FOLDER and not own:
        return load_manifest(base.parent)
    # No repository is looked at besides: the folder itself stands in for one and is the home already.
    return load_manifest(base.parent if base.name == REPOSITORY_FOLDER else base, base)


def _report(manifest: Manifest, only: Path | None) -> Report:
    """Gather what is wrong; ``only`` leaves out what lies in no file at or below it."""
    declared: dict[Path, ManifestError | None] = {
        **dict.fromkeys(bottle.path for bottle in manifest.bottles.values()),
        **dict.fromkeys(agent.path for agent in manifest.agents.values()),
        **manifest.broken_files,
    }
    chosen = {path: error for path, error in declared.items() if only is None or path.is_relative_to(only)}
    problems = [problem for path, error in chosen.items() if error for problem in _problems(path, error)]
    for agent in manifest.agents.values():
        if agent.path in chosen:
            problems += _agent_problems(manifest, agent)
    ordered = sorted(set(problems), key=lambda p: (p.file, p.line, p.column, p.key))
    notes = dict.fromkeys(
        f"{source.path}:{source.line}:{source.column}: {note}; remove this line unless that is meant"
        for bottle in manifest.bottles.values()
        if bottle.path in chosen
        for note, source in env_notes(bottle)
        if source
    )
    notes |= dict.fromkeys(
        f"{source.path}:{source.line}:{source.column}: {note}"
        for bottle in manifest.bottles.values()
        if bottle.path in chosen
        for note, source in guard_notes(bottle, os.environ)
        if source
    )
    notes |= dict.fromkeys(
        f"{source.path}:{source.line}:{source.column}: {note}"
        for bottle in _launched(manifest)
        if bottle.path in chosen
        for note, source in (*asking_notes(bottle), *source_notes(bottle, os.environ))
        if source
    )
    return Report(files=tuple(chosen), problems=tuple(ordered), warnings=(*manifest.warnings, *notes))


def _launched(manifest: Manifest) -> Iterator[ManifestBottle]:
    """Give the bottles that agents run in, and those that nobody names: the rest are parts of others."""
    run = {agent.bottle for agent in manifest.agents.values()}
    parts = {name for bottle in manifest.bottles.values() for name in bottle.extends}
    return (one for one in manifest.bottles.values() if one.name in run or one.name not in parts)


def _routes_report(path: Path) -> Report:
    try:
        load_routes_file(path)
    except ManifestError as error:
        return Report(files=(path,), problems=tuple(_problems(path, error)))
    return Report(files=(path,), problems=())


def _agent_problems(manifest: Manifest, agent: ManifestAgent) -> Iterator[Problem]:
    """Find what is wrong between an agent and its bottle; a broken bottle is reported by itself."""
    if agent.bottle in manifest.broken_bottles:
        return
    try:
        agent_skills(manifest.bottle_for(agent.name), agent, env=os.environ)
    except ManifestError as error:
        yield from _problems(agent.path, error)


def _problems(path: Path, error: ManifestError) -> Iterator[Problem]:
    if isinstance(error, ManifestFileError):
        yield from error.problems
    else:
        yield Problem(file=str(path), line=0, column=0, key="", message=str(error))
