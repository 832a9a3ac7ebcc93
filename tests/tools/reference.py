"""Make the pages of reference of the code: ``python -m tests.tools.reference [--check]``.

Refusals (docs/denials.md) are read from the source (each ``Deny(...)`` and the functions that only pass words
on to one), commands (cli.md) from the program itself, keys (keys.md) from the manifest's schema, records
(audit.md) from the catalogue that tests hold every record against: no page can say what is not so.
``--check`` writes nothing and fails where a page is not what the code says.
"""

from __future__ import annotations

import ast
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot_bottle.audit_events import CHAIN_FIELDS, EVENTS
from bot_bottle.cli.commands import COMMANDS, cli
from tests.tools import manifest_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bot_bottle"
DENIALS, COMMAND_LINE = ROOT / "docs" / "denials.md", ROOT / "docs" / "cli.md"
KEYS, AUDIT = ROOT / "docs" / "keys.md", ROOT / "docs" / "audit.md"
#: Where refusals come from, in the order of the page.
_ROOMS = {"egress": "Egress", "git_gate": "The git gate", "sidecar": "The operator"}
#: What reading a message raises, whose words become a refusal: the reason where none is given, the rule.
_READERS = {
    "BadMessageError": ("bad_request", "egress.http"),
    "FrameError": ("bad_request", "egress.http2"),
    "malformed": ("bad_request", "egress.http2"),
}
_OPEN = "…"

_DENIALS_HEAD = """\
# Refusals

Made by `python -m tests.tools.reference` of the source; not written by hand. Each refusal has the same words
for the agent (a JSON body and `X-Bot-Bottle-*` headers, or git's stderr), in the audit log and in
`bot-bottle logs`. `reason` is stable, so that programs may tell one from another by it; an ellipsis stands
for what belongs to the request. Where no next step stands here, it depends on the request, or is to send one
well-formed message.
"""
_AUDIT_HEAD = """\
# The audit log

Made by `python -m tests.tools.reference` of `bot_bottle/audit_events.py`; not written by hand. A bottle's log
is `~/.bot-bottle/audit/IDENTITY.jsonl` (mode 0600): one JSON object a line, only ever appended to, and no
record holds a secret's value. `bot-bottle logs` and `bot-bottle audit` show it, `bot-bottle audit verify`
tells whether lines were changed, dropped, added or reordered, and whether it was ended in order.

A type with `?` may be null or missing; `strings` is a list. New fields and events may come; what is here
stays.

## Every record

"""
_CLI_HEAD = """\
# Commands

Made by `python -m tests.tools.reference` of the program; not written by hand. Exit codes, and what each
command is for: [../README.md](../README.md) and the other pages.
"""


@dataclass(frozen=True, order=True)
class Refusal:
    """One way to refuse, as its words stand in the source; empty where they are made elsewhere."""

    reason: str
    rule: str
    message: str
    next_step: str


def refusals(folder: Path) -> list[Refusal]:
    """Find every refusal in the modules of one room."""
    found: set[Refusal] = set()
    for file in sorted(folder.rglob("*.py")):
        found.update(_in_module(ast.parse(file.read_text())))
    return sorted(found)


def _in_module(tree: ast.Module) -> Iterator[Refusal]:
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for scope in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]:
        for call in _calls(scope, "Deny"):
            words = {one.arg: one.value for one in call.keywords if one.arg}
            reason = words.get("reason")
            if isinstance(reason, ast.Constant):
                yield _refusal(words)
            elif isinstance(reason, ast.Name) and isinstance(scope, ast.FunctionDef):
                yield from _passed_on(tree, scope, words, reason.id)
            elif isinstance(reason, ast.Subscript) and isinstance(reason.value, ast.Name):
                table = constants.get(reason.value.id)
                if isinstance(table, ast.Dict):
                    for key in table.keys:
                        filled = _Filled(constants, scope, key)
                        yield _refusal({name: filled.visit(deepcopy(one)) for name, one in words.items()})
    for name, (reason_else, rule) in _READERS.items():
        for call in _calls(tree, name):
            words = {one.arg: one.value for one in call.keywords if one.arg}
            reason = words.get("reason", ast.Constant(value=reason_else))
            message = call.args[0] if call.args else words.get("message")
            if isinstance(reason, ast.Constant) and _text(message) not in {"", _OPEN}:
                yield Refusal(_text(reason), rule, _text(message), "")


class _Filled(ast.NodeTransformer):
    """Puts in what is known of a text where one row of a module's tables is taken."""

    def __init__(self, constants: dict[str, ast.expr], scope: ast.AST, key: ast.expr | None) -> None:
        self._tables = {name: table for name, table in constants.items() if isinstance(table, ast.Dict)}
        self._key = key.value if isinstance(key, ast.Constant) else None
        self._local = {name: one for name, one in constants.items() if isinstance(one, ast.Constant)} | {
            node.targets[0].id: node.value
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Put in what a name was given."""
        value = self._local.pop(node.id, None)  # once, or it could go round
        if value is None:
            return node
        filled: ast.expr = self.visit(deepcopy(value))
        self._local[node.id] = value
        return filled

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """Put in what stands in the row."""
        table = self._tables.get(node.value.id) if isinstance(node.value, ast.Name) else None
        rows = zip(table.keys, table.values, strict=True) if table else ()
        for key, value in rows:
            if isinstance(key, ast.Constant) and key.value == self._key:
                return deepcopy(value)
        return node


def _passed_on(
    tree: ast.Module, function: ast.FunctionDef, words: dict[str, ast.expr], reason: str
) -> Iterator[Refusal]:
    """Read the words of a refusal off the calls of the function that makes it."""
    names = [one.arg for one in function.args.args if one.arg not in {"self", "cls"}]
    for call in _calls(tree, function.name):
        given = dict(zip(names, call.args, strict=False)) | {
            one.arg: one.value for one in call.keywords if one.arg
        }
        filled = {
            field: given.get(value.id, value) if isinstance(value, ast.Name) else value
            for field, value in words.items()
        }
        for one in _choices(given.get(reason)):
            yield _refusal({**filled, "reason": one})


def _choices(value: ast.expr | None) -> Iterator[ast.Constant]:
    if isinstance(value, ast.Constant):
        yield value
    elif isinstance(value, ast.IfExp):
        yield from _choices(value.body)
        yield from _choices(value.orelse)


def _calls(scope: ast.AST, name: str) -> Iterator[ast.Call]:
    """Give the calls of ``name`` in a scope, those of functions inside it left to these."""
    waiting = list(ast.iter_child_nodes(scope))
    # A refusal is read with the function that it stands in, which may be handed its words.
    whole = not (isinstance(scope, ast.Module) and name == "Deny")
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef) and not whole:
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Call):
            called = node.func
            if (isinstance(called, ast.Name) and called.id == name) or (
                isinstance(called, ast.Attribute) and called.attr == name
            ):
                yield node


def _refusal(words: dict[str, ast.expr]) -> Refusal:
    return Refusal(*(_text(words.get(field)) for field in ("reason", "rule", "message", "next_step")))


def _text(value: ast.expr | None) -> str:
    """Give a text as it stands, with an ellipsis for what is only known later."""
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
        case ast.FormattedValue(value=ast.Constant() | ast.JoinedStr() as inner):
            return _text(inner)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
        case ast.IfExp(body=body, orelse=orelse):
            either = [text for text in (_text(body), _text(orelse)) if text not in {"", _OPEN}]
            longer = [
                one for one in either if not any(one != other and other.startswith(one) for other in either)
            ]
            return " / ".join(longer) or _OPEN
        case None:
            return ""
        case _:
            return _OPEN


def denials_page() -> str:
    """Write the page of refusals."""
    lines = [_DENIALS_HEAD]
    for room, title in _ROOMS.items():
        lines += [f"\n## {title}\n", "| reason | rule | message | next step |", "| --- | --- | --- | --- |"]
        found = refusals(PACKAGE / room)
        for reason in sorted({one.reason for one in found}):
            these = [one for one in found if one.reason == reason]
            cells = (
                f"`{reason}`",
                _cell(f"`{one.rule}`" for one in these),
                _cell(one.message for one in these),
                _cell(one.next_step for one in these),
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(texts: Iterable[str]) -> str:
    """Write each different text once, one below the other; none that says nothing."""
    different = dict.fromkeys(" ".join(text.split()).replace("|", "\\|") for text in texts)
    return "<br>".join(text for text in different if text.strip("`… :,.;()"))


def cli_page() -> str:
    """Write the page of commands."""
    lines = [_CLI_HEAD]
    # As the program does it, or -h is missing; a command keeps the first that it was asked for.
    top = cli.make_context("bot-bottle", [], resilient_parsing=True)
    for name in COMMANDS:
        command = cli.get_command(top, name)
        assert command is not None
        lines += _describe(command, f"bot-bottle {name}", top)
    return "\n".join(lines).rstrip() + "\n"


def _describe(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(
        command, parent, info_name=name.rsplit(maxsplit=1)[-1], terminal_width=100, max_content_width=100
    )
    yield f"\n## {name}\n"
    yield "```"
    yield command.get_help(context).rstrip()
    yield "```"
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            inner = command.get_command(context, word)
            if inner is not None:
                yield from (
                    line.replace("\n## ", "\n### ") for line in _describe(inner, f"{name} {word}", context)
                )


def pages() -> dict[Path, str]:
    """Give every page and its text."""
    return {
        DENIALS: denials_page(),
        COMMAND_LINE: cli_page(),
        KEYS: manifest_keys.page(),
        AUDIT: audit_page(),
    }


def audit_page() -> str:
    """Write the page of audit records."""
    lines = [_AUDIT_HEAD, "| field | meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in CHAIN_FIELDS.items()]
    for name, event in EVENTS.items():
        lines += [f"\n## {name}\n", event.meaning]
        if event.fields:
            lines += ["", "| field | type | meaning |", "| --- | --- | --- |"]
            lines += [f"| `{one}` | {field.type} | {field.meaning} |" for one, field in event.fields.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the pages, or check them."""
    check = "--check" in sys.argv[1:]
    stale = 0
    for place, text in pages().items():
        if place.exists() and place.read_text() == text:
            continue
        if check:
            print(f"{place} is not what the code says; run: python -m tests.tools.reference", file=sys.stderr)
            stale = 1
        else:
            place.write_text(text)
            print(f"{place} written")
    return stale


if __name__ == "__main__":
    sys.exit(main())
