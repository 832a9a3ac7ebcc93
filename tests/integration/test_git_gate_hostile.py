"""What no git does: raw requests, torn ones, bombs, crowds, deaths half way. Nothing is left half done."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import os
import socket
import struct
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from bot_bottle.audit import AuditLog
from bot_bottle.git_gate import http as http_module
from bot_bottle.git_gate import service as service_module
from bot_bottle.git_gate.pktline import FLUSH, packet
from bot_bottle.git_gate.policy import PushPolicy
from tests.support.family import wait_until
from tests.support.git_lab import GitLab, Repo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.git_gate.scanning import Hit

pytestmark = pytest.mark.integration

ZERO = "0" * 40
POST = b"POST /project.git/git-receive-pack HTTP/1.1\r\n"
HEAD = POST + b"Content-Type: application/x-git-receive-pack-request\r\n"
RECEIVE = "/project.git/git-receive-pack"
UPLOAD = "/project.git/git-upload-pack"


def address(lab: GitLab) -> tuple[str, int]:
    assert lab.gate is not None
    parts = urlsplit(lab.gate.url)
    return str(parts.hostname), int(parts.port or 0)


def raw(lab: GitLab, data: bytes, *, half: bool = True) -> bytes:
    """Send bytes and read all that comes."""
    with socket.create_connection(address(lab), timeout=60) as sock:
        with contextlib.suppress(OSError):  # refused early and closed: the answer is still to be read
            sock.sendall(data)
            if half:
                sock.shutdown(socket.SHUT_WR)
        parts = []
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                parts.append(data)
    return b"".join(parts)


def post(lab: GitLab, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address(lab), timeout=100)
    service = path.rpartition("/")[2]
    fields = {"Content-Type": f"application/x-{service}-request"}
    connection.request("POST", path, body, {**fields, **{k.replace("_", "-"): v for k, v in headers.items()}})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


def command(ref: str, new: str, old: str = ZERO, capabilities: str = "report-status") -> bytes:
    return packet(f"{old} {new} {ref}".encode() + b"\0 " + capabilities.encode())


def pack(*objects: tuple[int, bytes], count: int | None = None, deltas: tuple[bytes, ...] = ()) -> bytes:
    """Write a pack of whole objects, then of deltas on the first of them (gitformat-pack(5))."""
    data = b"PACK" + struct.pack(">II", 2, len(objects) + len(deltas) if count is None else count)
    base = hashlib.sha1(b"blob %d\0" % len(objects[0][1]) + objects[0][1]).digest() if deltas else b""
    for kind, content, before in (
        *((kind, content, b"") for kind, content in objects),
        *((7, delta, base) for delta in deltas),  # OBJ_REF_DELTA
    ):
        size, byte = len(content), (kind << 4) | (len(content) & 15)
        size >>= 4
        while size:
            data += bytes([byte | 128])
            byte, size = size & 127, size >> 7
        data += bytes([byte]) + before + zlib.compress(content)
    return data + hashlib.sha1(data).digest()


@pytest.fixture
def lab(gate_lab: GitLab) -> Iterator[GitLab]:
    """Start the gate; afterwards nothing may have moved or been left."""
    before = gate_lab.upstream.refs()
    gate_lab.start()
    Repo(gate_lab.folder, gate_lab.env).git("ls-remote", gate_lab.url)
    yield gate_lab
    wait_until(lambda: gate_lab.left_over() == [], "a push left something behind")
    assert gate_lab.upstream.refs() == before
    Repo(gate_lab.folder, gate_lab.env).git("ls-remote", gate_lab.url)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"PUT /project.git/info/refs HTTP/1.1\r\n\r\n",
        b"GET http://evil.test/ HTTP/1.1\r\n\r\n",
        b"GET /project.git/info/refs HTTP/1.1\r\n folded: x\r\n\r\n",
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0000",
        POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\n0000",
        POST + b"Content-Length: -4\r\n\r\n0000",
        b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20000 + b"\r\n",
    ],
    ids=range(9),
)
def test_requests_that_are_none(lab: GitLab, data: bytes) -> None:
    answer = raw(lab, data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/project.git/HEAD", 404),
        ("GET", "/project.git/config", 404),
        ("GET", "/project.git/objects/info/packs", 404),
        ("GET", "/project.git/info/refs", 404),
        ("GET", "/project.git/info/refs?service=git-upload-archive", 404),
        ("GET", "/project.git/info/lfs/locks", 501),
        ("GET", "/../mirror-0.git/info/refs?service=git-upload-pack", 404),
        ("GET", "/%2e%2e/mirror-0.git/info/refs?service=git-upload-pack", 404),
        ("GET", "/mirror-0.git/info/refs?service=git-upload-pack", 404),
        ("GET", "/at/ssh/evil.test/x.git/info/refs?service=git-upload-pack", 404),
        ("GET", "/at/https/evil.test/x.git/info/refs?service=git-upload-pack", 307),
        ("POST", "/project.git/info/refs?service=git-receive-pack", 404),
        ("POST", RECEIVE, 415),
    ],
)
def test_what_is_served_is_git_and_nothing_else(lab: GitLab, method: str, path: str, status: int) -> None:
    connection = http.client.HTTPConnection(*address(lab), timeout=60)
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == status
    assert (answer.getheader("X-Bot-Bottle-Decision") is None) == (status == 307)


@pytest.mark.parametrize(
    "body",
    [
        b"0001",
        b"ffff",
        b"zzzz",
        packet(b"nonsense") + FLUSH,
        command("refs/heads/bottle/x", "f" * 40)[:-5],
        packet(b"push-cert\0 x") + FLUSH,
        b"".join(command(f"refs/heads/bottle/{n}", "f" * 40) for n in range(200)) + FLUSH,
    ],
    ids=range(7),
)
def test_pushes_that_are_none(lab: GitLab, body: bytes) -> None:
    answer = raw(lab, HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pack(), b"unpack fatal"),
        (pack((3, b"a blob")), b"unpack fatal"),
        (pack((1, b"no commit at all")), b"unpack"),
        (pack(count=10_000_000), b"MaxPushObjects"),
        (b"PACK", b""),
        (b"NOPE" + bytes(100), b"no pack"),
        (pack((3, b"x"))[:-3], b""),
        (pack((3, b"x"))[:-1] + b"?", b"unpack"),
    ],
    ids=range(8),
)
def test_packs_that_hold_no_push(lab: GitLab, data: bytes, words: bytes) -> None:
    body = command("refs/heads/bottle/x", "f" * 40) + FLUSH + data
    with contextlib.suppress(http.client.HTTPException, ConnectionError):
        status, answer = post(lab, RECEIVE, body)
        assert status == 200
        assert b"ng refs/heads/bottle/x" in answer
        assert words in answer


def test_objects_beside_the_push_reach_nobody(lab: GitLab) -> None:
    """A pack may hold more than its refs reach: that is neither forwarded nor kept."""
    work = lab.clone()
    tip = work.git("rev-parse", "HEAD")
    stray = b"blob nobody refers to"
    oid = hashlib.sha1(b"blob %d\0" % len(stray) + stray).hexdigest()
    body = command("refs/heads/bottle/x", tip) + FLUSH + pack((3, stray))
    status, answer = post(lab, RECEIVE, body)
    assert status == 200
    assert b"ok refs/heads/bottle/x" in answer
    assert lab.upstream.run("cat-file", "-e", oid).returncode != 0
    lab.upstream.git("update-ref", "-d", "refs/heads/bottle/x")


def test_a_refused_pushs_objects_are_gone(lab: GitLab) -> None:
    work = lab.clone()
    tip = work.commit({"x": "x"})
    assert work.run("push", "origin", "HEAD:refs/heads/nowhere").returncode != 0
    assert lab.mirror.run("cat-file", "-e", tip).returncode != 0
    body = command("refs/heads/bottle/x", tip) + FLUSH + pack()
    assert b"ng refs/heads/bottle/x" in post(lab, RECEIVE, body)[1]


def test_a_blob_that_unfolds_is_counted_unfolded(gate_lab: GitLab) -> None:
    gate_lab.start(policy=PushPolicy(max_bytes=1_000_000))
    Repo(gate_lab.folder, gate_lab.env).git("ls-remote", gate_lab.url)
    bomb = bytes(30_000_000)
    oid = hashlib.sha1(b"blob %d\0" % len(bomb) + bomb).digest()
    tree = b"100644 bomb\0" + oid
    tree_oid = hashlib.sha1(b"tree %d\0" % len(tree) + tree).hexdigest()
    who = "A <a@git.test> 1700000000 +0000"
    commit = f"tree {tree_oid}\nauthor {who}\ncommitter {who}\n\nx\n".encode()
    tip = hashlib.sha1(b"commit %d\0" % len(commit) + commit).hexdigest()
    body = command("refs/heads/bottle/x", tip) + FLUSH + pack((3, bomb), (2, tree), (1, commit))
    assert len(body) < 200_000
    assert b"larger than 1000000 bytes" in post(gate_lab, RECEIVE, body)[1]
    assert gate_lab.left_over() == []


def test_a_tree_that_unfolds_without_end(lab: GitLab) -> None:
    """Ten trees that each name the one below ten times: ten thousand million files, a kilobyte of pack."""
    objects: list[tuple[int, bytes]] = [(3, b"x\n")]
    below, mode = hashlib.sha1(b"blob 2\0x\n").digest(), b"100644"
    for _level in range(10):
        tree = b"".join(mode + b" f%d\0" % number + below for number in range(10))
        objects.append((2, tree))
        below, mode = hashlib.sha1(b"tree %d\0" % len(tree) + tree).digest(), b"40000"
    who = "A <a@git.test> 1700000000 +0000"
    commit = f"tree {below.hex()}\nauthor {who}\ncommitter {who}\n\nx\n".encode()
    objects.append((1, commit))
    tip = hashlib.sha1(b"commit %d\0" % len(commit) + commit).hexdigest()
    body = command("refs/heads/bottle/x", tip) + FLUSH + pack(*objects)
    answer = post(lab, RECEIVE, body)[1]
    assert b"ng refs/heads/bottle/x" in answer
    assert b"out of memory" in answer


def test_an_archive_that_unfolds_without_end(gate_lab: GitLab) -> None:
    """Some kilobytes that are hundreds of megabytes once unpacked twice; and signs of archives alone."""
    gate_lab.start(policy=PushPolicy(max_bytes=2_000_000, max_objects=1000))
    work = gate_lab.clone()
    pack_one = zlib.compressobj(9, wbits=31)
    bomb = b"".join(pack_one.compress(bytes(1 << 20)) for _ in range(200)) + pack_one.flush()
    for content, words in (
        (gzip.compress(bomb), "larger than 2000000 bytes"),
        (b"\x1f\x8b\x08\0" * 2_000, "MaxPushObjects"),
    ):
        work.commit({"bomb.gz": content})
        done = work.run("push", "origin", "bottle/x")
        assert done.returncode != 0
        assert words in done.stderr
        work.git("reset", "-q", "--hard", "HEAD~1")
    assert gate_lab.left_over() == []


def test_a_delta_that_unfolds_without_end(lab: GitLab) -> None:
    """A delta of kilobytes that says a thousand times: all of the sixteen megabytes before it."""
    size = 0xFFFFFF

    def varint(number: int) -> bytes:
        low, rest = number & 127, number >> 7
        return bytes([low | 128]) + varint(rest) if rest else bytes([low])

    copy = bytes([0x80 | 0x70]) + size.to_bytes(3, "little")
    delta = varint(size) + varint(1000 * size) + 1000 * copy
    data = pack((3, bytes(size)), deltas=(delta,))
    assert len(data) < 100_000
    answer = post(lab, RECEIVE, command("refs/heads/bottle/x", "f" * 40) + FLUSH + data)[1]
    assert b"ng refs/heads/bottle/x" in answer
    assert b"Out of memory" in answer


def test_lines_without_end_before_a_push_are_cut_short(lab: GitLab) -> None:
    body = packet(b"shallow " + b"a" * 60_000) * 40
    assert raw(lab, HEAD + b"Content-Length: %d\r\n\r\n" % (len(body) * 100) + body)[9:12] in {b"413", b""}
    answer = raw(lab, HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body, half=False)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")


def test_gzip_that_unfolds_and_gzip_that_is_broken(lab: GitLab) -> None:
    bomb = gzip.compress(b"0" * 4 * 10_000_000)  # a flood of flushes
    for content in (bomb, b"no gzip"):
        with contextlib.suppress(http.client.HTTPException, ConnectionError):  # cut short is as good
            assert post(lab, UPLOAD, content, Content_Encoding="gzip")[0] in {200, 400, 413}
    assert post(lab, UPLOAD, b"0000", Content_Encoding="br")[0] == 415


def test_a_client_that_dies_in_the_middle_of_its_pack(lab: GitLab) -> None:
    body = command("refs/heads/bottle/x", "f" * 40) + FLUSH + pack((3, b"x" * 1000))[:30]
    with socket.create_connection(address(lab), timeout=60) as sock:
        sock.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + body)
        wait_until(lambda: lab.left_over() != [], "the push never came to its pack")


def test_a_client_that_dies_while_its_push_is_scanned(gate_lab: GitLab) -> None:
    """What is not yet with the upstream when its client is gone never gets there."""
    begun, go_on = threading.Event(), threading.Event()

    class Waits:
        def scan(self, data: bytes, *, path: str) -> tuple[Hit, ...]:
            begun.set()
            assert go_on.wait(60)
            return ()

    gate_lab.scanner = Waits
    gate_lab.start()
    work = gate_lab.clone()
    tip = work.commit({"x": "x"})
    pack_data = work.run_bytes("pack-objects", "--stdout", "--revs", given=f"{tip}\n^origin/main\n".encode())
    body = command("refs/heads/bottle/x", tip, capabilities="report-status side-band-64k") + FLUSH + pack_data
    with socket.create_connection(address(gate_lab), timeout=60) as sock:
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert begun.wait(60)
    go_on.set()
    wait_until(lambda: gate_lab.left_over() == [], "the push left something behind")
    assert "refs/heads/bottle/x" not in gate_lab.upstream.refs()
    assert "refs/heads/bottle/x" not in gate_lab.mirror.refs()


def test_a_client_that_stops_in_the_middle_is_let_go(lab: GitLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "IDLE_SECONDS", 1.0)
    body = command("refs/heads/bottle/x", "f" * 40) + FLUSH + pack((3, b"x" * 1000))[:30]
    for sent in (b"00", body):
        with socket.create_connection(address(lab), timeout=60) as sock:
            sock.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + sent)
            answer = b""
            while piece := sock.recv(65536):  # the gate's end is closed by itself
                answer += piece
        assert b"408" in answer[:20] or b"stopped coming" in answer or answer == b""


def test_a_client_that_does_not_read_its_clone_is_let_go(
    gate_lab: GitLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = Repo(gate_lab.folder / "seed-upstream.git", gate_lab.env)
    tip = seed.commit({"large": os.urandom(8_000_000)})
    seed.git("push", "-q", str(gate_lab.upstream.path), "main")
    gate_lab.start()
    Repo(gate_lab.folder, gate_lab.env).git("ls-remote", gate_lab.url)
    monkeypatch.setattr(http_module, "IDLE_SECONDS", 5.0)
    body = packet(f"want {tip} side-band-64k\n".encode()) + FLUSH + packet(b"done\n")
    head = f"POST {UPLOAD} HTTP/1.1\r\nContent-Type: application/x-git-upload-pack-request\r\n"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.settimeout(60)
        sock.connect(address(gate_lab))
        sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        got = sock.recv(1)
        wait_until(lambda: serves(gate_lab), "nothing serves a client that asked for a clone")
        wait_until(lambda: not serves(gate_lab), "what serves a client that does not read goes on")
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(1 << 20):
                got += piece
    assert got.startswith(b"HTTP/1.1 200 ")
    assert not got.endswith(b"0\r\n\r\n")


def test_more_connections_than_are_served_are_told_so(lab: GitLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(
        http_module, "_HEAD_SECONDS", 600.0
    )  # those that say nothing stay, however slow this is
    here = Repo(lab.folder, lab.env)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(address(lab), timeout=60))
        assert here.run("ls-remote", lab.url).returncode != 0
    wait_until(
        lambda: here.run("ls-remote", lab.url).returncode == 0, "the crowd is gone, and nobody is served"
    )


def serves(lab: GitLab) -> bool:
    """Tell whether a process serves a clone of the gate's mirror."""
    mirror = os.fsencode(lab.mirror.path)
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = place.read_bytes()
            if mirror in line and b"upload-pack" in line:
                return True
    return False


def test_a_thousand_refs_are_fetched_and_pushed_beside(gate_lab: GitLab) -> None:
    upstream = gate_lab.upstream
    main = upstream.refs()["refs/heads/main"]
    names = [f"refs/heads/many/{number}" for number in range(1200)]
    upstream.git("update-ref", "--stdin", given="".join(f"create {one} {main}\n" for one in names).encode())
    upstream.git("pack-refs", "--all")
    gate_lab.start()
    work = gate_lab.clone()
    assert len(work.git("ls-remote", "origin", "refs/*").splitlines()) == len(names) + 1
    new = work.commit({"x": "x"})
    work.git("push", "-q", "origin", "bottle/x")
    assert upstream.refs()["refs/heads/bottle/x"] == new
    upstream.git("update-ref", "--stdin", given="".join(f"delete {one}\n" for one in names).encode())
    work.git("fetch", "-q", "--prune")
    assert set(gate_lab.mirror.refs()) == {"refs/heads/main", "refs/heads/bottle/x"}


def test_pushes_at_once_all_land_or_are_told_why(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = [gate_lab.clone(f"work{n}") for n in range(4)]
    results: dict[int, int] = {}

    def push(number: int) -> None:
        work[number].commit({f"f{number}": "x"})
        results[number] = work[number].run("push", "origin", f"HEAD:refs/heads/bottle/{number}").returncode

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), 0)
    refs = gate_lab.upstream.refs()
    assert all(refs[f"refs/heads/bottle/{n}"] == work[n].git("rev-parse", "HEAD") for n in range(4))


def test_after_a_sudden_death_the_mirror_follows_the_upstream(gate_lab: GitLab) -> None:
    """Dead between the upstream's yes and the mirror's own ref: the mirror is behind, then level again."""
    gate_lab.start()
    work = gate_lab.clone()
    tip = work.commit({"x": "x"})
    gate_lab.stop()
    work.git("push", "-q", str(gate_lab.upstream.path), "HEAD:refs/heads/bottle/x")
    (gate_lab.mirror.path / "packed-refs.lock").touch()
    (gate_lab.mirror.path / "refs/heads/main.lock").touch()
    (gate_lab.gate_folder / "incoming-dead" / "pack").mkdir(parents=True)
    gate_lab.start()
    work.git("fetch", "-q")
    assert gate_lab.mirror.refs()["refs/heads/bottle/x"] == tip
    assert gate_lab.left_over() == []


def test_a_full_log_closes_the_gate(gate_lab: GitLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: AuditLog, event: str, **fields: object) -> None:
        raise OSError("full")

    gate_lab.start()
    work = gate_lab.clone()
    work.commit({"x": "x"})
    monkeypatch.setattr(AuditLog, "append", full)
    assert work.run("fetch").returncode != 0
    assert work.run("push", "origin", "bottle/x").returncode != 0
    assert "refs/heads/bottle/x" not in gate_lab.upstream.refs()
    monkeypatch.undo()
