"""What is granted, written into a bottle's file as a human would: all that stood there stays as it was. Pure.

Nothing is serialised anew. The place is found by the parser's marks, lines are put in, and the result is
believed only where it reads as the old data with that one route, or those patterns for pushes, more.
"""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from bot_bottle.git_gate.policy import DEFAULT_BRANCHES
from bot_bottle.manifest.frontmatter import split_frontmatter
from bot_bottle.manifest.yaml_tree import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9._/-]*")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_BY_HAND_GIT = "its git.remotes are written in a form that is not added to; write it by hand: bot-bottle edit"
_BY_HAND = "its egress is written in a form that is not added to; write the route by hand: bot-bottle edit"


def with_route(text: str, host: str, paths: Sequence[str], methods: Sequence[str]) -> str:
    """Give a bottle file's ``text`` with one route more, at the end of those it has.

    A bottle that extends another gets it under ``add_routes``. Raises ``ValueError`` with a sentence where
    the file's form does not allow that.
    """
    front = split_frontmatter(text)
    before = _data(front.yaml)
    route: dict[str, Any] = {"host": host}
    route |= {"path_allowlist": list(paths)} if paths else {}
    route |= {"methods": list(methods)} if methods else {}
    key = _key(before)
    wanted = copy.deepcopy(before)
    egress = wanted.setdefault("egress", {})
    if not isinstance(egress, dict) or not isinstance(egress.setdefault(key, []), list):
        raise ValueError(_BY_HAND)  # noqa: TRY004 - the file's fault, not a caller's
    egress[key].append(route)
    new = _inserted(front.yaml, key, route, alone="egress" not in before)
    read = parse_yaml(new, file="")
    if read.problems or read.data != wanted:
        raise ValueError(_BY_HAND)
    start = text.index("\n") + 1
    return text[:start] + new + text[start + len(front.yaml) :]


def with_push(text: str, remote: str, branches: Sequence[str], paths: Sequence[str]) -> str:
    """Give a bottle file's ``text`` in which the remote of that name takes these branches and paths too.

    Raises ``ValueError`` with a sentence where the file's form does not allow that.
    """
    front = split_frontmatter(text)
    new, data = front.yaml, _data(front.yaml)
    git = data.get("git")
    remotes = git.get("remotes") if isinstance(git, dict) else None
    found = [
        host
        for host, keys in (remotes.items() if isinstance(remotes, dict) else ())
        if isinstance(keys, dict) and keys.get("Name") == remote
    ]
    if len(found) != 1:
        raise ValueError(f"it has no remote of the name {remote!r} itself; write it by hand: bot-bottle edit")
    for key, usual, patterns in (("Branches", DEFAULT_BRANCHES, branches), ("AllowPaths", (), paths)):
        before = _data(new)["git"]["remotes"][found[0]].get(key, list(usual))
        if not isinstance(before, list):
            raise ValueError(_BY_HAND_GIT)  # noqa: TRY004 - the file's fault, not a caller's
        more = [pattern for pattern in patterns if pattern not in before]
        if not more:
            continue
        wanted = _data(new)
        wanted["git"]["remotes"][found[0]][key] = [*before, *more]
        new = _with_items(new, found[0], key, before, more)
        read = parse_yaml(new, file="")
        if read.problems or read.data != wanted:
            raise ValueError(_BY_HAND_GIT)
    start = text.index("\n") + 1
    return text[:start] + new + text[start + len(front.yaml) :]


def _with_items(text: str, host: str, key: str, before: list[Any], more: list[str]) -> str:
    """Put items into the list of that name of one remote, which is made where it is not there."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    remote = _value(_value(_value(root, "git"), "remotes"), host)
    items = _value(remote, key)
    lines = text.splitlines(keepends=True)
    if isinstance(items, yaml.SequenceNode):
        if items.flow_style:
            return _into_flow(text, items, ", ".join(map(_flow, more)))
        after = _last_line(items) + 1
        block = [f"{' ' * items.start_mark.column}- {_flow(one)}\n" for one in more]
        return "".join((*lines[:after], *block, *lines[after:]))
    if items is not None or not isinstance(remote, yaml.MappingNode):
        raise ValueError(_BY_HAND_GIT)
    entry = f"{key}: {_flow([*before, *more])}"
    if remote.flow_style:
        return _into_flow(text, remote, entry)
    after = _last_line(remote) + 1
    return "".join((*lines[:after], f"{' ' * remote.start_mark.column}{entry}\n", *lines[after:]))


def _into_flow(text: str, node: yaml.Node, entry: str) -> str:
    end = node.end_mark.index - 1
    comma = ", " if node.value else ""
    return f"{text[:end].rstrip()}{comma}{entry}{text[end:]}"


def _key(data: dict[str, Any]) -> str:
    egress = data.get("egress")
    if isinstance(egress, dict):
        for key in ("routes", "add_routes"):
            if key in egress:
                return key
    return "add_routes" if data.get("extends") else "routes"


def _data(text: str) -> dict[str, Any]:
    tree = parse_yaml(text, file="")
    if tree.problems:
        raise ValueError(tree.problems[0].message)
    if tree.data is None:
        return {}
    if not isinstance(tree.data, dict):
        raise ValueError(_BY_HAND)  # noqa: TRY004 - as above
    return tree.data


def _inserted(text: str, key: str, route: dict[str, Any], *, alone: bool) -> str:
    if alone:
        return f"{text}egress:\n  {key}:\n{_block(route, '    ')}"
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    routes = _value(_value(root, "egress"), key)
    if not isinstance(routes, yaml.SequenceNode):
        raise ValueError(_BY_HAND)  # noqa: TRY004 - as above
    if routes.flow_style:
        return _into_flow(text, routes, _flow(route))
    lines = text.splitlines(keepends=True)
    after = _last_line(routes) + 1
    block = _block(route, " " * routes.start_mark.column)
    return "".join((*lines[:after], block, *lines[after:]))


def _value(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return value  # type: ignore[no-any-return]
    return None


def _last_line(node: yaml.Node) -> int:
    """Give the line of the last thing in a node; a block's own end lies behind the comments after it."""
    if isinstance(node, yaml.ScalarNode) or getattr(node, "flow_style", False) or not node.value:
        return int(node.end_mark.line)
    last = node.value[-1]
    return _last_line(last[1] if isinstance(last, tuple) else last)


def _block(route: dict[str, Any], indent: str) -> str:
    first, *rest = (f"{name}: {_flow(value)}\n" for name, value in route.items())
    return "".join((f"{indent}- {first}", *(f"{indent}  {line}" for line in rest)))


def _flow(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_flow(item)}' for name, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    text = str(value)
    # A JSON string is a YAML scalar in double quotes (YAML 1.2, 1.3).
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text)
