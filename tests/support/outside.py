"""The test's side of the scripted world: run programs in it, and ask what reached the outside."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot_bottle.demo.upstreams import Seen
from bot_bottle.verify.sinkhole import Packet, Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

REPO = Path(__file__).resolve().parents[2]

#: The interpreter as it is found inside a bottle too: the one that runs the product, without its environment.
BASE_PYTHON = str(Path(sys.executable).resolve())

#: How many times longer than elsewhere anything may take: emulated machines (tests.tools.kvmbox) are slow;
#: their clocks are too, though not as much.
PACE = 4 if os.environ.get("BOT_BOTTLE_KVMBOX") else 1

#: An ordinary account for tests that run as root: no passwd entry, no group, no privilege.
ORDINARY_UID = 61357


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who runs the product in a test."""

    name: str
    uid: int


def accounts() -> tuple[Account, ...]:
    """Give the accounts this test run can use: root and an ordinary user, or the one it runs as."""
    if os.getuid() == 0:
        return Account(name="root", uid=0), Account(name="user", uid=ORDINARY_UID)
    return (Account(name="user", uid=os.getuid()),)


def download_cache() -> Path:
    """Give the folder that keeps what tests download from one run to the next."""
    place = os.environ.get("BOT_BOTTLE_TEST_CACHE")
    folder = Path(place) if place else Path.home() / ".cache" / "bot-bottle-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


@contextlib.contextmanager
def alone_in_cache(name: str) -> Iterator[Path]:
    """Give the folder ``name`` of the cache, once no other run of tests is filling it any more."""
    place = download_cache() / name
    with place.with_name(f".{name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield place


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a program did; text is decoded leniently, since hostile programs print anything."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")

    @property
    def err(self) -> str:
        """Standard error as text."""
        return self.stderr.decode(errors="replace")

    def json(self) -> Any:
        """Parse standard output as JSON; fails the test with all there is to see where it is not."""
        try:
            return json.loads(self.stdout)
        except ValueError:
            raise AssertionError(f"exit {self.returncode}, no JSON:\n{self.out}\n{self.err}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Everything that reached the outside up to one moment."""

    requests: tuple[Seen, ...]
    accepted: tuple[tuple[str, int], ...]
    questions: tuple[Question, ...]
    datagrams: tuple[tuple[str, int, bytes], ...]
    packets: frozenset[Packet]
    haystacks: tuple[bytes, ...]
    """Each request's bytes in lower case: every test searches all of them."""

    def with_marker(self, marker: str) -> list[str]:
        """Say every place where ``marker`` is found, in whatever case; empty means it never got out."""
        needle = marker.lower()
        places = [
            f"request to {seen.local} sni={seen.sni} {seen.method} {seen.target}"
            for seen, haystack in zip(self.requests, self.haystacks, strict=True)
            if needle in seen.sni.lower() or needle.encode() in haystack
        ]
        places += [
            f"DNS question {question}" for question in self.questions if needle in question.name.lower()
        ]
        places += [
            f"datagram to {address}:{port}"
            for address, port, data in self.datagrams
            if needle.encode() in data.lower()
        ]
        return places

    def packets_to(self, address: str) -> frozenset[Packet]:
        """Give the packets that went to one address."""
        return frozenset(packet for packet in self.packets if packet.destination == address)


class World:
    """A running scripted outside."""

    def __init__(self, readable: Iterable[Path] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bot-bottle-test-"))
        self.folder.chmod(0o711)
        scratch = self.folder / "world"
        scratch.mkdir(mode=0o755)
        self.ca_file = scratch / "outside-ca.pem"
        needed = [Path(sys.base_prefix), Path(sys.prefix), REPO, *readable]
        config = {"scratch": str(scratch), "readable": [str(path.resolve()) for path in needed]}
        self._socket_path = str(self.folder / "control")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.world", self._socket_path, json.dumps(config)],
            cwd=REPO,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
        )
        #: What the world told already: it only tells what is new.
        self._known: dict[str, list[Any]] = {
            kind: [] for kind in ("requests", "accepted", "questions", "datagrams", "packets")
        }
        self._haystacks: list[bytes] = []
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self._process.wait()
            raise RuntimeError("the scripted world did not start; its own words are above")

    def call(self, op: str, **arguments: object) -> Any:
        """Give the world one command and wait for its answer; a ``timeout`` is stretched to the pace here."""
        if "timeout" in arguments:
            arguments["timeout"] = float(str(arguments["timeout"])) * PACE
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._socket_path)
            connection.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["ok"]

    def records(self) -> Records:
        """Give everything that reached the outside so far."""
        known = self._known
        raw = self.call("records", since={kind: len(found) for kind, found in known.items()})
        known["requests"] += [_seen(item) for item in raw["requests"]]
        known["accepted"] += [(address, port) for address, port in raw["accepted"]]
        known["questions"] += [Question(**item) for item in raw["questions"]]
        known["datagrams"] += [(a, p, base64.b64decode(d)) for a, p, d in raw["datagrams"]]
        known["packets"] += [Packet(**item) for item in raw["packets"]]
        self._haystacks += [
            (seen.raw + seen.body).lower() for seen in known["requests"][len(self._haystacks) :]
        ]
        return Records(
            requests=tuple(known["requests"]),
            accepted=tuple(known["accepted"]),
            questions=tuple(known["questions"]),
            datagrams=tuple(known["datagrams"]),
            packets=frozenset(known["packets"]),
            haystacks=tuple(self._haystacks),
        )

    def reached(self, marker: str) -> list[str]:
        """Say every place outside where ``marker`` is found."""
        return self.records().with_marker(marker)

    def run(
        self,
        argv: list[str],
        *,
        account: Account | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
        timeout: float = 60,
    ) -> Completed:
        """Run a program beside the bottles: with the outside in reach and nothing between."""
        result = self.call(
            "run",
            argv=argv,
            env={"PATH": os.environ["PATH"], "CURL_CA_BUNDLE": str(self.ca_file), **(env or {})},
            cwd=str(cwd or self.folder),
            uid=account.uid if account else os.getuid(),
            stdin=base64.b64encode(stdin).decode(),
            timeout=timeout,
        )
        return Completed(
            returncode=result["returncode"],
            stdout=base64.b64decode(result["stdout"]),
            stderr=base64.b64decode(result["stderr"]),
        )

    def close(self) -> None:
        """End the world and everything in it, and remove its files."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(90)  # what a failed test left running is given time to end in order
        self._process.stdout.close()
        shutil.rmtree(self.folder)


def new_marker(attack: str) -> str:
    """Draw a text that stands nowhere else: what carries it out is found by searching for it."""
    return f"{attack}-{secrets.token_hex(6)}"


def _seen(item: dict[str, Any]) -> Seen:
    return Seen(
        server=item["server"],
        local=(item["local"][0], item["local"][1]),
        tls=item["tls"],
        sni=item["sni"],
        method=item["method"],
        target=item["target"],
        headers=tuple((key, value) for key, value in item["headers"]),
        raw=base64.b64decode(item["raw"]),
        body=base64.b64decode(item["body"]),
    )
