"""The catalogue of audit records tells a record that it knows from one that it does not."""

from __future__ import annotations

import ast
from pathlib import Path

import bot_bottle
from bot_bottle.audit import AuditLog
from bot_bottle.audit_events import EVENTS, deviations
from bot_bottle.audit_reading import read_records


def test_a_log_is_as_the_catalogue_says(tmp_path: Path) -> None:
    path = tmp_path / "audit" / "x.jsonl"
    log = AuditLog.open(path)
    log.append("start", identity="x", routes=1, pid=2)
    log.append("session", state="ended", exit_code=3)
    log.append("git_push_result", remote="r", refs=["update a b..c"], taken=True, message="")
    log.close()
    path.write_bytes(path.read_bytes() + b'{"torn')
    AuditLog.open(path).close()
    records = list(read_records(path))
    events = [str(record["event"]) for record in records]
    assert events == ["start", "session", "git_push_result", "end", "recovered", "end"]
    assert [one for record in records for one in deviations(record)] == []


def test_what_is_not_so_is_said() -> None:
    chain = {"seq": 1, "time": "", "prev": "", "hash": ""}
    assert deviations({"event": "new", **chain}) == ["the event 'new' is not in the catalogue"]
    found = deviations({"event": "start", "seq": 1, "identity": 1, "routes": True, "more": ""})
    assert found == [
        "start: time is missing",
        "start: prev is missing",
        "start: hash is missing",
        "start: identity is 1 and no string",
        "start: routes is True and no number",
        "start: pid is None and no number",
        "start: more is not in the catalogue",
    ]


def test_every_event_that_the_source_names_is_in_the_catalogue() -> None:
    """Those named where they are written; tests hold all that are read against it."""
    named = set()
    for file in Path(bot_bottle.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", getattr(node.func, "id", ""))
                in {"append", "record_event", "_record", "_write_record", "record"}
                and node.args
                and node.keywords
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
            ):
                named.add(node.args[0].value)
    assert {"request", "dns", "git_push", "reload", "panic", "asked", "pull"} <= named
    assert named <= set(EVENTS)
