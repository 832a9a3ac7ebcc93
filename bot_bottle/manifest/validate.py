"""From parsed YAML to checked keys: every pydantic finding gets its place and a sentence for the operator."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bot_bottle.manifest.problem import KeyPath, Problem, key_text, shown
from bot_bottle.manifest.refused import REFUSED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pydantic_core import ErrorDetails

    from bot_bottle.manifest.yaml_tree import YamlTree

Keys = TypeVar("Keys", bound=BaseModel)

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of keys to values",
}


def validate_keys(tree: YamlTree, model: type[Keys], *, file: str) -> tuple[Keys | None, list[Problem]]:
    """Check ``tree`` against ``model``; gives the keys, or None and every problem found."""
    problems = list(tree.problems)
    data = {} if tree.data is None else tree.data
    if problems:
        return None, problems
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    # A key that was misspelt is there: saying that it is missing too would be one mistake told twice.
    misspelt = {
        (*path[:-1], _meant(str(path[-1]), list(owner.model_fields)))
        for path in (tuple(one["loc"]) for one in details if one["type"] == "extra_forbidden")
        if (owner := _model_at(model, path[:-1])) is not None
    }
    return None, [
        _problem(tree, model, detail, file)
        for detail in details
        if detail["type"] != "missing" or tuple(detail["loc"]) not in misspelt
    ]


def problem_at(tree: YamlTree, file: str, path: KeyPath, message: str, *, of_key: bool = False) -> Problem:
    """Make a problem that stands at ``path``."""
    line, column = tree.place(path, of_key=of_key)
    return Problem(file=file, line=line, column=column, key=key_text(path), message=message)


def _problem(tree: YamlTree, model: type[BaseModel], detail: ErrorDetails, file: str) -> Problem:
    path: KeyPath = tuple(detail["loc"])
    of_key = False
    if path and path[-1] == "[key]":  # pydantic's way to say: the key itself, not its value
        path, of_key = path[:-1], True
    path = _known_part(tree, path)
    kind = detail["type"]
    if kind == "extra_forbidden":
        message, of_key = _unknown_key(model, path), True
    elif kind == "missing":
        message = f"is missing; write for example {_example(model, path)}"
        return problem_at(tree, file, path, message)
    elif kind == "value_error":
        message = str(detail["ctx"]["error"])
    elif detail["input"] is None and kind == "string_type" and _model_at(model, path[:-1]) is None:
        message = 'is empty; write "" for empty text, or remove the key'
    elif detail["input"] is None and kind in _WANTED:
        message = f"is empty; write for example {_example(model, path)}, or remove the key"
    elif kind in _WANTED:
        message = _wrong_kind(model, path, detail)
    elif kind == "too_short":
        message = f"is an empty list; write for example {_example(model, path)}"
    else:
        message = f"{_range(detail)}; write for example {_example(model, path)}"
    return problem_at(tree, file, path, message, of_key=of_key)


def _known_part(tree: YamlTree, path: KeyPath) -> KeyPath:
    """Drop what pydantic adds to a location for its own unions, keeping a key that is merely absent."""
    while len(path) > 1 and path not in tree.values and path[:-1] not in tree.values:
        path = path[:-1]
    while path and isinstance(path[-1], int) and path not in tree.values:  # a scalar that was read as a list
        path = path[:-1]
    return path


def _wrong_kind(model: type[BaseModel], path: KeyPath, detail: ErrorDetails) -> str:
    value = detail["input"]
    wanted = _WANTED[detail["type"]]
    owner = _model_at(model, path[:-1])
    is_key = not path or (owner is not None and path[-1] in owner.model_fields)
    if wanted == "a whole number" and isinstance(value, float):
        return f"must be a whole number, and this has a fraction; write for example {_example(model, path)}"
    if wanted == "text" and not is_key and not isinstance(value, (list, dict)):
        return f"must be text, and this is {_kind_name(value)}; put it in quotes"
    return f"must be {wanted}, and this is {_kind_name(value)}; write for example {_example(model, path)}"


def _kind_name(value: object) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _range(detail: ErrorDetails) -> str:
    context: Mapping[str, object] = detail.get("ctx", {})
    if "ge" in context:
        return f"is too small (at least {context['ge']})"
    if "le" in context:
        return f"is too large (at most {context['le']})"
    return "is not a value this key takes"


def _unknown_key(model: type[BaseModel], path: KeyPath) -> str:
    """Explain a key that is not known: no longer one, misspelt, or simply not there."""
    owner = _model_at(model, path[:-1])
    name = str(path[-1])
    if owner is None:
        return "unknown key; remove it"
    refused = REFUSED.get(owner, {}).get(name)
    if refused:
        return refused
    known = list(owner.model_fields)
    meant = _meant(name, known)
    if meant:
        return f"unknown key; did you mean {meant}?"
    return f"unknown key; the keys here are {', '.join(known)}"


def _meant(name: str, known: Collection[str]) -> str:
    """Give the key that was most likely meant: one that begins so before one that looks alike."""
    begun = [key for key in known if key.startswith(name.lower())]
    close = begun if len(begun) == 1 else difflib.get_close_matches(name.lower(), known, n=1)
    return close[0] if close else ""


def _example(model: type[BaseModel], path: KeyPath) -> str:
    """Give what to write at ``path``, from the field's first example."""
    steps = [step for step in path if isinstance(step, str)]
    if not steps:
        return "key: value"
    for depth in range(len(path) - 1, -1, -1):
        name = path[depth]
        owner = _model_at(model, path[:depth])
        if owner is None or not isinstance(name, str) or name not in owner.model_fields:
            continue
        examples = owner.model_fields[name].examples or ["value"]
        return f"{name}: {flow(examples[0])}"
    return "key: value"


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """Find the model that describes the mapping at ``path``."""
    owner: type[BaseModel] | None = model
    is_name = False  # whether the next step is a name the operator chose, as below git.remotes
    for step in path:
        if isinstance(step, int):
            continue
        if is_name:
            is_name = False
            continue
        if owner is None or step not in owner.model_fields:
            return None
        annotation = owner.model_fields[step].annotation
        is_name = get_origin(annotation) is dict
        owner = next(_models_in(annotation), None)
    return None if is_name else owner


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def flow(value: object) -> str:
    """Write plain data in YAML's one-line form."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(flow(item) for item in value) + "]"
        case bool():
            return "true" if value else "false"
        case str() if value.startswith("*"):
            return f'"{value}"'
        case _:
            return shown(str(value))
