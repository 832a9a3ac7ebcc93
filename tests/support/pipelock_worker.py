"""The whole scanner, real engine included, in a process of its own that answers line by line.

The engine brings a Go runtime along; the process that runs the tests forks, so it must not have one.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot_bottle.pipelock.engine import Betterleaks
from bot_bottle.pipelock.finding import Context
from bot_bottle.pipelock.host_labels import judge_host
from bot_bottle.pipelock.loader import LateEngine
from bot_bottle.pipelock.own_secrets import OwnSecrets
from bot_bottle.pipelock.request import RequestScanner
from bot_bottle.pipelock.scanner import Limits, Scanner
from bot_bottle.pipelock.session import Session
from bot_bottle.pipelock.stream import StreamScanner
from bot_bottle.secret import Secret
from tests.support.pipelock import judge_message

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATIENCE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A finding as it came over the pipe."""

    kind: str
    rule: str
    place: str
    layers: tuple[str, ...]
    text: str


class Judge:
    """The worker seen from the tests."""

    def __init__(self, folder: Path, secrets: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self.facts = self._ask({"secrets": dict(secrets)})

    def scan(self, data: bytes, *, profile: str = "egress", **context: str) -> tuple[Found, ...]:
        """Judge one piece of content."""
        return self._found({"op": "scan", "profile": profile, "data": _text(data), "context": context})

    def body(self, data: bytes, content_type: str = "", encoding: str = "") -> tuple[Found, ...]:
        """Judge a body as egress would."""
        context = {"content_type": content_type, "encoding": encoding}
        return self._found({"op": "body", "data": _text(data), "context": context})

    def request(
        self, method: str, host: str, path: str, query: str, headers: Mapping[str, str]
    ) -> tuple[Found, ...]:
        """Judge the head of a request, and its host as one that a wildcard covers."""
        head = {"method": method, "host": host, "path": path, "query": query, "headers": dict(headers)}
        return self._found({"op": "request", **head})

    def message(self, data: bytes) -> tuple[Found, ...]:
        """Judge a WebSocket message."""
        return self._found({"op": "message", "data": _text(data)})

    def engine(self, data: bytes) -> list[str]:
        """Ask the bare engine, without gate and profile."""
        return list(self._ask({"op": "engine", "data": _text(data)})["rules"])

    def close(self) -> None:
        """End the worker."""
        self._process.communicate()

    def _found(self, question: dict[str, Any]) -> tuple[Found, ...]:
        return tuple(
            Found(kind=kind, rule=rule, place=place, layers=tuple(layers), text=text)
            for kind, rule, place, layers, text in self._ask(question)["found"]
        )

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the worker is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def main() -> None:
    """Answer until the input ends."""
    engine = LateEngine(Path(sys.argv[1]), wait=_PATIENCE)
    gated = engine.settle(_PATIENCE)
    first = json.loads(sys.stdin.readline())
    own = OwnSecrets({name: Secret(value) for name, value in first["secrets"].items()})
    # A busy machine must not make a test of what is found one of how fast.
    limits = Limits(seconds=_PATIENCE)
    scanners = {
        "egress": Scanner(profile="egress", engine=engine, own=own, clock=time.monotonic, limits=limits),
        "strict": Scanner(profile="strict", engine=engine, own=own, clock=time.monotonic, limits=limits),
    }
    requests = RequestScanner(scanners["egress"])
    bare = Betterleaks()
    sys.stdout.write(json.dumps({"gated": gated}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        question = json.loads(line)
        data = base64.b64decode(question.get("data", ""))
        found: tuple[Any, ...] = ()
        rules: list[str] = []
        match question["op"]:
            case "scan":
                found = scanners[question["profile"]].scan(data, Context(**question["context"]))
            case "body":
                stream = StreamScanner(scanners["egress"], Context(**question["context"]))
                found = stream.feed(data).refusals or stream.finish().refusals
            case "request":
                host = judge_host(question["host"], own)
                head = requests.scan(
                    method=question["method"].encode(),
                    path=question["path"].encode(),
                    query=question["query"].encode(),
                    headers=[(name.encode(), value.encode()) for name, value in question["headers"].items()],
                )
                found = (*((host,) if host else ()), *head)
            case "message":
                found = judge_message(scanners["egress"], Session(own), data)
            case "engine":
                rules = [hit.rule for hit in bare.find(data)]
        shown = [
            (entry.kind, entry.rule, entry.where.place, entry.where.layers, f"{entry} {entry.message}")
            for entry in found
        ]
        sys.stdout.write(json.dumps({"found": shown, "rules": rules}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
