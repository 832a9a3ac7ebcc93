"""C4-C7: stealing or misusing the credential that egress adds."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.attacks import inside
from tests.attacks.conftest import TOKEN_REF
from tests.support.family import Family
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from tests.support.lab import Lab, RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

C4 = {
    "none-of-its-own": "",
    "own-bearer": "-H 'Authorization: Bearer attacker'",
    "own-basic": "-u attacker:attacker",
    "lower-case": "-H 'authorization: Bearer attacker'",
    "two": "-H 'Authorization: Bearer attacker' -H 'Authorization: Basic YTpi'",
    "api-key": "-H 'x-api-key: attacker'",
    "api-key-and-bearer": "-H 'X-Api-Key: attacker' -H 'Authorization: Bearer attacker'",
    "google-key": "-H 'x-goog-api-key: attacker'",
    "gitlab-token": "-H 'PRIVATE-TOKEN: attacker'",
    "proxy-authorization": "-H 'Proxy-Authorization: Basic YXR0YWNrZXI='",
    "named-by-connection": "-H 'Connection: Authorization, X-Api-Key' -H 'X-Api-Key: attacker'",
    "underscore": "-H 'x_api_key: attacker'",
    "placeholder": '-H "Authorization: Bearer $API_TOKEN"',
}


@pytest.mark.parametrize("name", C4)
def test_c4_only_the_routes_own_credential_leaves(
    bottle: RunningBottle, world: World, token: str, name: str
) -> None:
    marker = new_marker("c4")
    bottle.sh(f"curl -sS -m 5 {C4[name]} https://api.test/{marker}")
    (seen,) = [seen for seen in world.records().requests if marker in seen.target]
    assert seen.values("authorization") == [f"Bearer {token}"]
    assert b"attacker" not in seen.raw
    assert b"YXR0YWNrZXI=" not in seen.raw
    assert b"placeholder-only" not in seen.raw
    (line,) = bottle.decisions(marker)
    assert line["injected"] == TOKEN_REF


def test_c4_a_host_without_a_credential_gets_none(bottle: RunningBottle, world: World, token: str) -> None:
    marker = new_marker("c4")
    bottle.sh(f"curl -sS -m 5 -H 'Authorization: Bearer attacker' https://allowed.test/{marker}")
    (seen,) = [seen for seen in world.records().requests if marker in seen.target]
    assert seen.values("authorization") == []
    assert token.encode() not in seen.raw


@pytest.mark.parametrize("authority", ["api.test:80", "api.test:443"])
def test_c5_nothing_is_injected_into_plain_http_in_a_tunnel(
    bottle: RunningBottle, world: World, token: str, authority: str
) -> None:
    marker = new_marker("c5")
    code = """
try:
    sock, answer = connect(authority)
    inner = ask(sock, f"GET /{marker} HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n")
except OSError as error:
    inner = "error: " + str(error)
tell(answer=inner)
"""
    answer = inside.run(bottle, code, authority=authority, marker=marker)["answer"]
    assert inside.status(answer) != 200
    assert world.reached(marker) == []


@pytest.mark.parametrize("url", ["http://api.test/{m}", "http://api.test:443/{m}"])
def test_c5_nothing_is_injected_into_plain_http_by_the_proxy(
    bottle: RunningBottle, world: World, token: str, url: str
) -> None:
    marker = new_marker("c5")
    assert bottle.sh(f"curl -sS -m 5 {url.format(m=marker)}").json()["reason"] == "plaintext_credential"
    assert world.reached(marker) == []
    assert not any(
        token.encode() in seen.raw + seen.body for seen in world.records().requests if not seen.tls
    )


def test_c5_no_host_but_the_routes_own_ever_saw_the_token(
    bottle: RunningBottle, world: World, token: str
) -> None:
    marker = new_marker("c5")
    bottle.sh(
        f"curl -sS -m 5 https://api.test/{marker} https://allowed.test/{marker} https://x.wild.test/{marker}"
    )
    hosts = {seen.sni for seen in world.records().requests if token.encode() in seen.raw + seen.body}
    assert hosts == {"api.test"}


def test_c6_the_token_is_nowhere_inside(bottle: RunningBottle, token: str) -> None:
    bottle.sh("curl -sS -m 5 https://api.test/warm-up")
    everything = bottle.sh(
        "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null;"
        " find / -xdev \\( -path /proc -o -path /usr \\) -prune -o -type f -exec cat {} + 2>/dev/null;"
        " find /home /tmp /run /etc /dev/shm -type f -exec cat {} + 2>/dev/null",
        timeout=60,
    )
    assert b"placeholder-only" in everything.stdout, "the search finds nothing, so it proves nothing"
    assert token.encode() not in everything.stdout + everything.stderr


def test_c6_the_token_is_in_no_memory_the_agent_can_read(bottle: RunningBottle, token: str) -> None:
    code = """
found, read = [], 0
for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                span, mode = line.split()[:2]
                if "r" in mode and "[v" not in line:
                    start, end = (int(part, 16) for part in span.split("-"))
                    memory.seek(start)
                    try:
                        data = memory.read(end - start)
                    except OSError:
                        continue
                    read += len(data)
                    # Put together here, so that this script does not find itself.
                    if (first + second).encode() in data.replace(first.encode() + b" ", b""):
                        found.append(pid)
    except OSError:
        pass
tell(found=[pid for pid in found if pid != str(os.getpid())], read=read)
"""
    result = inside.run(bottle, code, first=token[:14], second=token[14:])
    assert result["read"] > 0
    assert result["found"] == []


def test_c6_the_token_is_nowhere_on_the_host_but_where_the_operator_put_it(
    lab: Lab, fresh: list[RunningBottle], token: str
) -> None:
    running = lab.launch("attack", env={TOKEN_REF: token})
    fresh.append(running)
    running.sh("curl -sS -m 5 https://api.test/warm-up; curl -sS -m 5 http://api.test/$API_TOKEN")
    needle = token.encode()
    files = [path for path in lab.home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert running.audit_path in files
    assert [path for path in files if needle in path.read_bytes()] == []
    assert needle not in running.log.read_bytes()
    with Family(lab, running.launcher_pid, running.identity) as family:
        processes = family.pids
    assert len(processes) >= (3 if lab.machine_image else 4)
    for pid in processes:
        assert needle not in _proc(pid, "cmdline"), _proc(pid, "cmdline")
        if pid != running.launcher_pid:  # the launcher has the operator's own environment
            assert needle not in _proc(pid, "environ"), _proc(pid, "cmdline")


def test_c6_the_sidecar_leaves_no_core_and_cannot_be_traced(
    lab: Lab, fresh: list[RunningBottle], token: str
) -> None:
    running = lab.launch("attack", env={TOKEN_REF: token})
    fresh.append(running)
    with Family(lab, running.launcher_pid, running.identity) as family:
        sidecar = family.sidecar()
    limits = _proc(sidecar, "limits").decode()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    # A process that is not dumpable belongs to root in /proc, whoever runs it (proc(5)).
    assert Path("/proc", str(sidecar), "mem").stat().st_uid == 0
    if lab.account.uid != 0:
        probe = lab.world.run(["cat", f"/proc/{sidecar}/environ"], account=lab.account)
        assert probe.returncode != 0


def test_c7_the_ca_key_is_nowhere_and_each_bottle_has_its_own_ca(
    lab: Lab, fresh: list[RunningBottle], token: str
) -> None:
    for _ in range(2):
        fresh.append(lab.launch("attack", env={TOKEN_REF: token}))
    prints = set()
    for running in fresh:
        searched = running.sh(
            "find / -xdev \\( -path /proc -o -path /usr \\) -prune -o -type f -exec cat {} + 2>/dev/null;"
            " find /home /tmp /run /etc -type f -exec cat {} + 2>/dev/null",
            timeout=60,
        )
        assert b"BEGIN CERTIFICATE" in searched.stdout
        assert b"PRIVATE KEY" not in searched.stdout
        files = [path for path in running.state_dir.rglob("*") if path.is_file() and not path.is_symlink()]
        assert [path for path in files if b"PRIVATE KEY" in path.read_bytes()] == []
        ca = running.sh('cat "$NODE_EXTRA_CA_CERTS"').stdout
        assert b"BEGIN CERTIFICATE" in ca
        prints.add(hashlib.sha256(ca).hexdigest())
    assert len(prints) == 2


def test_c7_the_ca_cannot_be_replaced_from_inside(bottle: RunningBottle) -> None:
    result = bottle.sh(
        'for file in "$NODE_EXTRA_CA_CERTS" "$SSL_CERT_FILE"; do'
        ' echo x > "$file"; rm -f "$file"; mv "$file" /tmp/; ln -sf /tmp/x "$file"; done;'
        ' test -s "$NODE_EXTRA_CA_CERTS" && test -s "$SSL_CERT_FILE" && echo untouched'
    )
    assert result.out.strip() == "untouched"


def _proc(pid: int, name: str) -> bytes:
    try:
        return Path("/proc", str(pid), name).read_bytes()
    except PermissionError:
        if os.getuid() == 0:
            raise
        return b""  # another account's, or not dumpable: nothing an ordinary user can read
