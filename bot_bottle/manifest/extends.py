"""``extends``: every bottle file with its parents folded in; parents before children, without recursion."""

from __future__ import annotations

import difflib
from functools import reduce
from typing import TYPE_CHECKING

from bot_bottle.agent_provider.registry import DEFAULT_TEMPLATE
from bot_bottle.manifest.clashes import clashes
from bot_bottle.manifest.layers import Layer, effective_bottle, fold
from bot_bottle.manifest.model import ManifestAgentProvider
from bot_bottle.manifest.problem import ManifestFileError, Problem, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from bot_bottle.errors import ManifestError
    from bot_bottle.manifest.layers import BottleFile, Said
    from bot_bottle.manifest.model import ManifestBottle

_DEFAULT_PROVIDER = ManifestAgentProvider(template=DEFAULT_TEMPLATE)


def resolve_bottles(
    files: Mapping[str, BottleFile], broken: Mapping[str, ManifestError]
) -> tuple[dict[str, ManifestBottle], dict[str, ManifestError]]:
    """Give the effective bottle of each file, and the error of each that cannot be had.

    ``broken`` are the files that could not be read; they and all that extends them are among the errors.
    """
    errors = {**broken, **{file.name: _own_parent(file) for file in files.values() if _extends_itself(file)}}
    bottles: dict[str, ManifestBottle] = {}
    layers: dict[str, Layer] = {}
    readable = {name: file for name, file in files.items() if name not in errors}
    ordered, circular = _parents_first(readable)
    for file in ordered:
        problems = list(_parent_problems(file, files, errors))
        if not problems:
            parents = [layers[said.value] for said in file.extends]
            layers[file.name] = reduce(fold, (*parents, file.layer), Layer())
            problems = list(clashes(file, parents, layers[file.name]))
        if problems:
            errors[file.name] = ManifestFileError(problems)
        else:
            bottles[file.name] = effective_bottle(file, layers[file.name], _DEFAULT_PROVIDER)
    done = {*errors, *layers}
    circles = {
        file.name: ManifestFileError([_circle(file, readable, done), *_parent_problems(file, files, errors)])
        for file in circular
    }
    return {name: bottles[name] for name in files if name in bottles}, {**errors, **circles}


def _parents_first(files: Mapping[str, BottleFile]) -> tuple[list[BottleFile], list[BottleFile]]:
    """Order files so that parents come first, and give apart those in a circle or below one."""
    waiting = {
        name: {said.value for said in file.extends if said.value in files} for name, file in files.items()
    }
    children: dict[str, list[str]] = {}
    for name, parents in waiting.items():
        for parent in parents:
            children.setdefault(parent, []).append(name)
    ready = [name for name, parents in waiting.items() if not parents]
    ordered: list[BottleFile] = []
    while ready:
        name = ready.pop()
        del waiting[name]
        ordered.append(files[name])
        for child in children.get(name, ()):
            waiting[child].discard(name)
            if not waiting[child]:
                ready.append(child)
    return ordered, [files[name] for name in waiting]


def _extends_itself(file: BottleFile) -> bool:
    return any(said.value == file.name for said in file.extends)


def _own_parent(file: BottleFile) -> ManifestError:
    said = next(said for said in file.extends if said.value == file.name)
    return ManifestFileError([_at(said, f"a bottle cannot extend itself: {file.name} -> {file.name}")])


def _parent_problems(
    file: BottleFile, files: Mapping[str, BottleFile], errors: Mapping[str, ManifestError]
) -> Iterator[Problem]:
    seen: set[str] = set()
    for said in file.extends:
        parent = said.value
        if parent in seen:
            yield _at(said, f"names {shown(parent)} twice; keep one")
        elif parent in errors:
            yield from _inherited(said, errors[parent])
        elif parent not in files:
            yield _at(said, _unknown(parent, {*files, *errors}, file.name))
        seen.add(parent)


def _inherited(said: Said[str], error: ManifestError) -> Iterator[Problem]:
    if isinstance(error, ManifestFileError):
        yield _at(said, f"the bottle {shown(said.value)} needs mending first")
        yield from error.problems
    else:
        yield _at(said, f"the bottle {shown(said.value)} cannot be used: {error}")


def _circle(file: BottleFile, files: Mapping[str, BottleFile], done: Collection[str]) -> Problem:
    """Print the chain of parents that leads from ``file`` into a circle."""
    chain = [file.name]
    while True:
        # What is not done waits for a parent that is not done either, so the chain comes back at last.
        step = next(
            said for said in files[chain[-1]].extends if said.value in files and said.value not in done
        )
        chain.append(step.value)
        if step.value in chain[:-1]:
            break
    first = next(said for said in file.extends if said.value == chain[1])
    return _at(first, f"goes round in a circle: {' -> '.join(chain)}; remove one of these steps")


def _unknown(name: str, known: set[str], own: str) -> str:
    names = sorted(known - {own})
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"there is no bottle {shown(name)!r}; did you mean {close[0]}?"
    return f"there is no bottle {shown(name)!r}; those that exist: {', '.join(names) or 'none'}"


def _at(said: Said[str], message: str) -> Problem:
    source = said.source
    return Problem(
        file=str(source.path), line=source.line, column=source.column, key="extends", message=message
    )
