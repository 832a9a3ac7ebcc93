"""Content scanning: how fast one core judges typical bodies, beside the engine alone and detect-secrets.

Everything runs in alternation, in one process but for the betterleaks program, which reads the same text from
its standard input. What is counted is processor time (all threads of a process, children for the program), so
that a busy machine does not change what is compared.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib.util
import json
import os
import random
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import Table, median
from tests.support.outside import REPO

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS = 5
_SECONDS = 0.15


def _records(size: int, seed: int = 7) -> bytes:
    """Write JSON as an API answers and takes it: names, addresses, times, flags, numbers."""
    choose = random.Random(seed)
    words = Path(__file__).read_text().split()
    plain = sorted({word.strip("\"'(),.:;`=[]{}").lower() for word in words if word.isascii()} - {""})
    rows: list[str] = []
    while sum(len(row) for row in rows) < size:
        day = f"2026-0{choose.randrange(1, 9)}-1{choose.randrange(10)}T12:{choose.randrange(10, 60)}:00Z"
        rows.append(
            json.dumps({
                "id": choose.randrange(10**7),
                "name": " ".join(choose.choices(plain, k=5)),
                "email": f"{choose.choice(plain)}@example.com",
                "active": choose.random() < 0.5,
                "created_at": day,
                "score": round(choose.random() * 100, 3),
                "tags": choose.choices(plain, k=3),
                "url": f"https://api.example.com/v1/items/{choose.randrange(10**6)}",
            })
        )  # fmt: skip
    return ("[" + ",\n".join(rows) + "]").encode()[:size]


def _conversation(size: int) -> bytes:
    """Write a model conversation that quotes this project's source."""
    source = "".join(path.read_text() for path in sorted(Path(__file__).parents[1].glob("bot_bottle/*.py")))
    return json.dumps({"messages": [{"role": "user", "content": source}]}).encode()[:size]


def _lock(size: int) -> bytes:
    """Write a lock file: little but names and hashes."""
    choose = random.Random(3)
    rows: dict[str, object] = {}
    for number in range(size // 100):
        integrity = "sha512-" + base64.b64encode(choose.randbytes(64)).decode()
        rows[f"node_modules/pkg-{number}"] = {"version": f"{number % 9}.1.0", "integrity": integrity}
    return json.dumps(rows).encode()[:size]


def _encoded(size: int) -> bytes:
    """Write text in which a run of base64 hides text every 256 bytes, the most work there is."""
    choose = random.Random(5)
    words = _records(size, seed=9)
    rows = [
        b'{"t": "%b", "b": "%b"}' % (words[at : at + 160].replace(b'"', b"'"), _run(choose))
        for at in range(0, size, 256)
    ]
    return b"[" + b",".join(rows)[: size - 2] + b"]"


def _run(choose: random.Random) -> bytes:
    text = " ".join(choose.choice(("status", "of", "the", "build", "is", "green")) for _ in range(9))
    return base64.b64encode(text.encode()[:48])


def _rate(work: Callable[[], object]) -> float:
    """Give the processor seconds one call takes, over a stretch long enough to be read from the clock."""
    calls, start = 0, time.process_time()
    while (taken := time.process_time() - start) < _SECONDS:
        work()
        calls += 1
    return taken / calls


def measure(*, rounds: int = _ROUNDS) -> Table:
    """Measure all in alternation; the guarded values' search is part of every figure of ours."""
    from bot_bottle.pipelock.engine import Betterleaks  # noqa: PLC0415
    from bot_bottle.pipelock.finding import Context  # noqa: PLC0415
    from bot_bottle.pipelock.loader import LateEngine, clock  # noqa: PLC0415
    from bot_bottle.pipelock.own_secrets import OwnSecrets  # noqa: PLC0415
    from bot_bottle.pipelock.request import RequestScanner  # noqa: PLC0415
    from bot_bottle.pipelock.scanner import Scanner  # noqa: PLC0415
    from bot_bottle.secret import Secret  # noqa: PLC0415

    choose = random.Random(1)
    guarded = OwnSecrets({f"TOKEN_{n}": Secret(choose.randbytes(30).hex()) for n in range(5)})
    table = Table(
        title="Content scanning",
        columns=("content", "ours", "ours, MB/s", "betterleaks in process", "its program", "detect-secrets"),
        notes=[
            f"Processor time in µs, medians of {rounds} rounds in alternation. Ours: five guarded",
            "values in every form, our rules, the engine's rules behind the gate, decoding. The others",
            "decode nothing here and know no guarded values; of the program its start is counted too.",
        ],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        engine = LateEngine(Path(folder), wait=120.0)
        engine.settle(120.0)
    scanner = Scanner(profile="egress", engine=engine, own=guarded, clock=clock)
    bare = Betterleaks()
    context = Context(content_type="application/json")
    for label, data in {
        "1 KiB JSON": _records(1024),
        "100 KiB JSON": _records(100 * 1024),
        "1 KiB conversation with code": _conversation(1024),
        "100 KiB conversation with code": _conversation(100 * 1024),
        "100 KiB lock file": _lock(100 * 1024),
        "100 KiB, base64 every 256 bytes": _encoded(100 * 1024),
    }.items():
        if scanner.scan(data, context):
            raise RuntimeError(f"a finding in {label}: the figures would be of something else")
        ours: list[float] = []
        alone: list[float] = []
        detect: list[float] = []
        program: list[float] = []
        for _ in range(rounds):
            ours.append(_rate(functools.partial(scanner.scan, data, context)))
            alone.append(_rate(functools.partial(bare.find, data)))
            detect.append(_detect_secrets(data))
            program.append(_program(data))
        best = median(ours)
        table.add(
            label,
            f"{best * 1e6:,.0f}",
            f"{len(data) / best / 1e6:,.0f}",
            *(_shown(values) for values in (alone, program, detect)),
        )
    requests = RequestScanner(scanner)
    headers = [(b"User-Agent", b"pip/24.2"), (b"Accept", b"*/*"), (b"Accept-Encoding", b"gzip, deflate, br")]
    counter = iter(range(10**9))
    head = [
        _rate(
            lambda: requests.scan(
                method=b"GET", path=b"/v1/items/%d" % next(counter), query=b"page=2&sort=asc", headers=headers
            )
        )
        for _ in range(rounds)
    ]
    table.add("a request's head", f"{median(head) * 1e6:,.0f}", "", "", "", "")
    return table


def measure_answers(*, rounds: int = _ROUNDS) -> Table:
    """Measure what reading answers for orders costs a core."""
    from bot_bottle.pipelock.instructions import InstructionStream, Reader  # noqa: PLC0415

    table = Table(
        title="Reading answers for orders to an agent",
        columns=("answer", "µs", "MB/s"),
        notes=[f"Processor time, medians of {rounds} rounds; `responses: warn` delays no byte of it."],
    )
    reader = Reader()
    reader.find(b"decode")  # compiles what looks closer

    def read(data: bytes, *, is_json: bool) -> None:
        stream = InstructionStream(reader, is_json=is_json)
        stream.feed(data, least=16 * 1024)
        stream.finish()

    prose = b"".join(path.read_bytes() for path in sorted(REPO.glob("docs/*.md")))
    for label, data, is_json in (
        ("1 KiB JSON", _records(1024), True),
        ("100 KiB JSON", _records(100 * 1024), True),
        ("100 KiB prose", prose[: 100 * 1024], False),
        ("100 KiB conversation with code", _conversation(100 * 1024), True),
    ):
        taken = median([_rate(functools.partial(read, data, is_json=is_json)) for _ in range(rounds)])
        table.add(label, f"{taken * 1e6:,.0f}", f"{len(data) / taken / 1e6:,.0f}")
    return table


def measure_traffic(*, rounds: int = 3, seconds: float = 2.0) -> Table:
    """Measure requests through the proxy with content rules and without."""
    from benchmarks import load, peers  # noqa: PLC0415
    from benchmarks.upstream import Upstream  # noqa: PLC0415

    table = Table(
        title="Egress: what content scanning costs a request",
        columns=("route", "requests/s", "p50 µs", "p99 µs"),
        notes=[
            f"Medians of {rounds} rounds in alternation, 4 connections, 1 KiB answers. Without: content",
            "rules off (`tls_passthrough`), where the bottle's own secrets are searched for all the same.",
        ],
    )
    found: dict[str, list[tuple[float, ...]]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        upstream = stack.enter_context(Upstream(Path(name)))
        running: dict[str, peers.Running] = {}
        for label, rules in (("with content rules", True), ("without", False)):
            own = Path(name) / label.replace(" ", "-")
            own.mkdir()
            peer = peers.BotBottle(credential=False, rules=rules)
            running[label] = stack.enter_context(peer.start(own, upstream))
        for _ in range(rounds):
            for label, bottle in running.items():
                small = load.keep_alive(bottle.road, seconds=seconds)
                found.setdefault(label, []).append((small.per_second, small.p50, small.p99))
    for label, values in found.items():
        table.add(label, *(f"{median(list(column)):,.0f}" for column in zip(*values, strict=True)))
    return table


def measure_all() -> list[Table]:
    """Measure all there is to say of content."""
    return [measure(), measure_answers(), measure_traffic()]


def _shown(values: list[float]) -> str:
    return f"{median(values) * 1e6:,.0f}" if values and values[0] else "absent"


def _detect_secrets(data: bytes) -> float:
    if importlib.util.find_spec("detect_secrets") is None:
        return 0.0
    from detect_secrets.core.scan import scan_line  # noqa: PLC0415
    from detect_secrets.settings import default_settings  # noqa: PLC0415

    lines = data.decode().splitlines()
    with default_settings():
        start = time.process_time()
        for line in lines:
            list(scan_line(line))
        return time.process_time() - start


def _program(data: bytes) -> float:
    from betterleaks.cli import get_binary_path  # noqa: PLC0415

    argv = [get_binary_path(), "stdin", "--silent", "--jsonl", "--output=-", "--exit-code=0"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, input=data, capture_output=True, check=True, env={"PATH": os.defpath})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    for one in measure_all():
        print(one.markdown(), flush=True)
