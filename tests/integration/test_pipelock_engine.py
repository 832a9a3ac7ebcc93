"""The whole scanner with the real rule engine: the public cases, and this project's own daily traffic."""

from __future__ import annotations

import base64
import collections
import gzip
import json
import os
import re
import subprocess
import sys
import urllib.parse
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from betterleaks.cli import get_binary_path

from bot_bottle.errors import UnavailableError
from bot_bottle.pipelock import gate
from bot_bottle.pipelock.decode import SHAPES, decoded
from bot_bottle.pipelock.digits import digit_runs
from bot_bottle.pipelock.engine import EngineProgram
from bot_bottle.pipelock.own_secrets import skeleton
from tests.support.outside import REPO, download_cache
from tests.support.pipelock import SECRETS, letters
from tests.support.pipelock_worker import Judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.pipelock.engine import RuleEngine
    from tests.support.pipelock_worker import Found

pytestmark = pytest.mark.integration

CORPORA = Path(os.environ.get("BOT_BOTTLE_CORPORA", Path(__file__).parents[3] / "shared" / "corpora"))


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge(download_cache() / "pipelock", SECRETS)
    yield judge
    judge.close()


def _corpus(name: str) -> Any:
    path = CORPORA / name
    if not path.exists():
        pytest.skip(f"the corpus {name} is not on this machine")
    return json.loads(path.read_text())


def test_the_gate_opens(judge: Judge) -> None:
    assert judge.facts == {"gated": True}


def test_gates_of_an_image_spare_the_engine_and_spoilt_ones_do_not(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_engine() -> RuleEngine:
        raise AssertionError("there is nothing that the engine would have to judge")

    assert judge.facts == {"gated": True}  # so the cache has them, as an image would
    made = download_cache() / "pipelock"
    monkeypatch.setattr(gate, "AHEAD", made)
    engine = gate.GatedEngine(no_engine, tmp_path / "own")
    assert engine.take_kept_gates()
    assert engine.find(b"plain words, " * 5000, sure=True) == ()
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    for path in made.glob("*.gate"):
        (spoilt / path.name).write_bytes(path.read_bytes()[:-1000])
    for folder in (spoilt, tmp_path / "nowhere"):
        monkeypatch.setattr(gate, "AHEAD", folder)
        assert not gate.GatedEngine(no_engine, None).take_kept_gates()


def test_the_gate_holds_nothing_back(judge: Judge) -> None:
    """Where the bare engine finds something, the gated one does too."""
    missed = []
    for group in _corpus("secrets/tpfp.json"):
        for case in group["tps"][::7]:
            text = case["text"].encode()
            if judge.engine(text) and not judge.scan(text, profile="strict", place="file"):
                missed.append((group["rule"], case["text"]))
    # The widest rule's placeholders are let pass on purpose, after the gate.
    assert [entry for entry in missed if entry[0] != "generic-api-key"] == []


def test_cases_of_others_in_the_strict_profile(judge: Judge) -> None:
    """At least 99.5 % of the true ones are found, and none of the false ones by their own rule."""
    groups = _corpus("secrets/tpfp.json")
    true = {case["text"] for group in groups for case in group["tps"]}
    missed: collections.Counter[str] = collections.Counter()
    total = 0
    own_rule: list[str] = []
    other_rule: list[str] = []
    for group in groups:
        for case in group["tps"]:
            total += 1
            path = case.get("path", "")
            if not judge.scan(case["text"].encode(), profile="strict", place="file", path=path):
                missed[group["rule"]] += 1
        for case in group["fps"]:
            found = judge.scan(
                case["text"].encode(), profile="strict", place="file", path=case.get("path", "")
            )
            for entry in found:
                text = f"{group['rule']}: {entry.text}: {case['text'][:80]!r}"
                same = re.sub(r"\.\d+$", "", entry.rule) == group["rule"]
                (own_rule if same else other_rule).append(text)
                assert entry.kind == "credential"
    rate = 100 * (1 - missed.total() / total)
    print(f"\ntrue: {rate:.2f} % of {total}; missed {dict(missed)}")
    contradicting = sum(case["text"] in true for group in groups for case in group["fps"])
    print(f"false: {len(own_rule)} by their rule, {len(other_rule)} by another")
    print(f"({contradicting} of the false ones are true ones of other rules)")
    assert rate >= 99.5
    assert own_rule == []
    # Our own rules, which nobody's case is named after, raise no false alarm either.
    assert len(other_rule) <= 26


def test_decodings_of_others(judge: Judge) -> None:
    """What an encoded chunk hides is seen, with a key in its place."""
    missed = []
    for case in _corpus("secrets/decode.json"):
        level = [case["chunk"].encode()]
        seen = set(level)
        for _ in range(3):
            level = [
                text for data in level for _, text in decoded(data, SHAPES, digit_runs(data), skeleton(data))
            ]
            seen.update(level)
        if not any(case["expected"].encode() in text for text in seen):
            missed.append(case["name"])
    # Ours gives each decoded run in its own surroundings, not the whole text with every run replaced.
    assert missed in ([], ["unicode encoded value backslashed mixed w/ hex"])


def _egress_cases() -> list[dict[str, Any]]:
    folder = CORPORA / "egress-cases" / "cases"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]


#: What a tag of a case means for where and how its finding must be reported.
def _agrees(tag: str, found: Found) -> bool:
    match tag:
        case "url_dlp":
            return found.place in {"path", "query", "host", "body"}
        case "header_dlp":
            return found.place in {"header", "cookie"}
        case "request_body_dlp" | "mcp_input_scan":
            return found.place == "body"
        case "encoding_evasion":
            return bool(found.layers)
        case "crypto_dlp":
            return found.kind == "financial"
        case "hostname_exfil" | "entropy":
            return found.place == "host"
        case "websocket_dlp":
            return found.place == "websocket"
    return True


def _judge_case(judge: Judge, payload: dict[str, Any]) -> tuple[Found, ...]:
    if "frames" in payload:
        return judge.message("".join(frame["payload"] for frame in payload["frames"]).encode())
    if "jsonrpc_messages" in payload:
        return judge.body(json.dumps(payload["jsonrpc_messages"]).encode(), "application/json")
    url = urllib.parse.urlsplit(payload["url"])
    method, headers = payload.get("method", "GET"), payload.get("headers", {})
    found = judge.request(method, url.hostname or "", url.path, url.query, headers)
    if "body" in payload:
        found += judge.body(payload["body"].encode(), payload.get("content_type", ""))
    return found


def test_egress_cases_of_others(judge: Judge) -> None:
    """Every case that a look at the outgoing content can decide, and none of the benign ones."""
    cases = _egress_cases()
    if not cases:
        pytest.skip("the corpus egress-cases is not on this machine")
    elsewhere = {"ssrf_bypass", "response_injection"}  # decided by addresses, or on the way back
    wrong, judged = [], 0
    for case in cases:
        tags = set(case["capability_tags"])
        framed = any(frame.get("rsv1") for frame in case["payload"].get("frames", ()))
        if case["transport"] in {"mcp_stdio", "a2a"} or framed:
            continue
        block = case["expected_verdict"] == "block"
        if block and tags & elsewhere:
            continue
        judged += 1
        found = _judge_case(judge, case["payload"])
        if bool(found) != block or (found and not all(any(_agrees(tag, e) for e in found) for tag in tags)):
            wrong.append(
                (case["id"], case["expected_verdict"], sorted(tags), [entry.text for entry in found])
            )
    print(f"\n{judged} cases judged")
    assert wrong == []


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, check=True).stdout
    return [REPO / name for name in listed.decode().split("\0") if name]


#: Files whose purpose is to hold keys that look real.
_HOLDS_KEYS = re.compile(
    r"tests/(?:unit/test_(?:pipelock|manifest_values|secret|audit)|.*pipelock|.*claude|.*codex)"
)


def _benign() -> Iterator[tuple[str, bytes, str, str]]:
    """Give (what, body, content type, coding) of the traffic that making this project causes."""
    for path in _tracked():
        name = str(path.relative_to(REPO))
        data = path.read_bytes() if path.is_file() else b""
        if _HOLDS_KEYS.match(name) or not data:
            continue
        try:
            text = data.decode()
            binary = any(char < " " and char not in "\t\n\r\f\x1b" for char in text)
        except UnicodeDecodeError:
            binary = True
        if binary:
            yield f"upload {name}", data, "application/octet-stream", ""
            continue
        turn = {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_01", "content": text}],
        }
        request = {"model": "m", "max_tokens": 8192, "messages": [turn], "stream": True}
        yield f"conversation with {name}", json.dumps(request).encode(), "application/json", ""
        yield f"gist of {name}", data, "text/plain; charset=utf-8", ""
    yield from _packages()
    yield from _git()
    yield from _assets()
    yield from _documents()


def _packages() -> Iterator[tuple[str, bytes, str, str]]:
    hexes = "0123456789abcdef"
    for size in (3, 40, 900):
        lock = {
            "name": "app",
            "lockfileVersion": 3,
            "packages": {
                f"node_modules/@scope/pkg-{i}": {
                    "version": f"{i}.{i % 7}.0",
                    "resolved": f"https://registry.example/@scope/pkg-{i}/-/pkg-{i}-{i}.0.tgz",
                    "integrity": "sha512-" + base64.b64encode(letters(64).encode()[::-1]).decode(),
                }
                for i in range(size)
            },
        }
        yield f"npm audit of {size}", json.dumps(lock).encode(), "application/json", ""
        yield (
            f"npm audit of {size}, packed",
            gzip.compress(json.dumps(lock).encode()),
            "application/json",
            "gzip",
        )
        rows = "".join(f"pkg{i}=={i}.0 \\\n    --hash=sha256:{letters(64, hexes)}\n" for i in range(size))
        yield f"requirements of {size}", rows.encode(), "text/plain", ""
        crates = "".join(
            f'[[package]]\nname = "crate{i}"\nversion = "0.{i}.1"\nchecksum = "{letters(64, hexes)}"\n\n'
            for i in range(size)
        )
        yield f"Cargo.lock of {size}", crates.encode(), "application/toml", ""
        sums = "".join(f"example.org/mod{i} v1.{i}.0 h1:{letters(43)}=\n" for i in range(size))
        yield f"go.sum of {size}", sums.encode(), "text/plain", ""


def _git() -> Iterator[tuple[str, bytes, str, str]]:
    hexes = "0123456789abcdef"
    wants = b"".join(f"0032want {letters(40, hexes)}\n".encode() for _ in range(50))
    haves = b"".join(f"0032have {letters(40, hexes)}\n".encode() for _ in range(200))
    yield "git fetch", wants + b"0000" + haves + b"0009done\n", "application/x-git-upload-pack-request", ""
    command = "0014command=ls-refs\n0016agent=git/2.43.0-Linux0016object-format=sha10001"
    yield "git ls-refs", command.encode(), "application/x-git-upload-pack-request", ""
    log = subprocess.run(["git", "log", "-30", "-p"], cwd=REPO, capture_output=True, check=True).stdout
    shown = re.sub(rb"(?ms)^diff --git a/tests/.*?(?=^diff|^commit|\Z)", b"", log)
    yield (
        "review of a patch",
        json.dumps({"patch": shown.decode("utf-8", "replace")}).encode(),
        "application/json",
        "",
    )


def _assets() -> Iterator[tuple[str, bytes, str, str]]:
    noise = bytes((i * 7919 + (i >> 3) * 104729) % 251 for i in range(60_000))
    image = b"\x89PNG\r\n\x1a\n" + noise
    encoded = base64.b64encode(image).decode()
    yield "an image", image, "image/png", ""
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": encoded}}
    yield "an image in a conversation", json.dumps({"messages": [block]}).encode(), "application/json", ""
    yield "a data URI", f'<img src="data:image/png;base64,{encoded}">'.encode(), "text/html", ""
    script = "".join(
        f"function {a}{i}(e,t){{var n=e.{a}||t[{i}],r='{letters(6)}';return n?{a}{i + 1}(r):null}}"
        for i, a in enumerate("abcdefghijk" * 60)
    )
    yield "a minified script", script.encode(), "application/javascript", ""
    mappings = ";".join(letters(40, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh,") for _ in range(900))
    source_map = {"version": 3, "sources": ["a.ts"], "sourcesContent": [script], "mappings": mappings}
    yield "a source map", json.dumps(source_map).encode(), "application/json", ""
    wheel = b"".join(b"PK\x03\x04" + noise[i : i + 900] for i in range(0, 9000, 900))
    form = (
        b'--q\r\nContent-Disposition: form-data; name="content"; filename="a.whl"\r\n\r\n'
        + wheel
        + b"\r\n--q--"
    )
    yield "a package upload", form, "multipart/form-data; boundary=q", ""


def _documents() -> Iterator[tuple[str, bytes, str, str]]:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    body = base64.urlsafe_b64encode(b'{"sub":"1234567890","name":"John Doe"}').decode().rstrip("=")
    token = f"{head}.{body}.{letters(43)}"
    doc = f"# Tokens\n\nA token looks like `{token}`.\n\n```python\njwt.decode('{token}', key)\n```\n"
    yield "documentation with a web token", doc.encode(), "text/markdown", ""
    yield "the same in a conversation", json.dumps({"content": doc}).encode(), "application/json", ""
    ids = {"ids": [str(uuid.UUID(int=i * 0x1234567890ABCDEF1234567)) for i in range(1, 400)]}
    yield "UUIDs", json.dumps(ids).encode(), "application/json", ""
    rows = [
        {"id": 1784790000123456 + i, "t": 1784790000.5 + i, "sha": letters(40, "0123456789abcdef")}
        for i in range(400)
    ]
    yield "numbers and hashes", json.dumps(rows).encode(), "application/json", ""
    env = "API_KEY=\nDATABASE_URL=postgres://postgres:postgres@localhost:5432/app\nSECRET_KEY=change-me\nPASSWORD=${PW}\n"
    yield "an example environment", env.encode(), "text/plain", ""
    code = 'api_key = os.environ.get("API_KEY")\ntoken = f"Bearer {get_token()}"\npassword = getpass()\n'
    yield "code that handles keys", code.encode(), "text/x-python", ""
    yield (
        "a query",
        json.dumps({"query": "query { viewer { login } }", "variables": {}}).encode(),
        "application/json",
        "",
    )


def _benign_heads() -> Iterator[tuple[str, str, str, dict[str, str]]]:
    hexes = "0123456789abcdef"
    agent = {
        "User-Agent": 'pip/24.2 {"ci":null,"cpu":"x86_64"}',
        "Accept": "*/*",
        "Accept-Encoding": "gzip, deflate, br",
    }
    yield (
        "files.example",
        f"/packages/{letters(2, hexes)}/{letters(60, hexes)}/requests-2.32.3-py3-none-any.whl",
        "",
        agent,
    )
    yield (
        "registry.example",
        "/@types%2fnode",
        "",
        {
            "User-Agent": "npm/10.8.2 node/v20.18.0 linux x64 workspaces/false",
            "npm-session": letters(16, hexes),
        },
    )
    yield "registry.example", "/lodash/-/lodash-4.17.21.tgz", "", agent
    yield (
        "github.example",
        "/octocat/Hello-World.git/info/refs",
        "service=git-upload-pack",
        {"User-Agent": "git/2.43.0", "Git-Protocol": "version=2"},
    )
    yield (
        "api.github.example",
        f"/repos/octocat/Hello-World/commits/{letters(40, hexes)}/check-runs",
        "per_page=100&page=2",
        agent,
    )
    yield (
        "api.model.example",
        "/v1/messages",
        "beta=true",
        {
            "anthropic-version": "2023-06-01",
            "x-stainless-os": "Linux",
            "X-Request-Id": str(uuid.UUID(int=99 << 90)),
        },
    )
    yield (
        "index.crates.example",
        "/cl/ap/clap",
        "",
        {"If-None-Match": f'W/"{letters(32, hexes)}"', "cache-control": "no-cache"},
    )
    yield "proxy.golang.example", "/github.com/!burnt!sushi/toml/@v/v1.4.0.mod", "go-get=1", agent
    yield (
        "cdn.example",
        f"/assets/index-{letters(8)}.js",
        f"v={letters(20)}",
        {"Cookie": "theme=dark; _ga=GA1.2.1234567890.1700000000"},
    )
    yield (
        "objects.example",
        "/release-asset",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAVCODYLSA53PQK4ZA%2F20240101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Signature="
        + letters(64, hexes),
        agent,
    )
    yield "www.search.example", "/search", "q=how+to+fix+%22permission+denied%22+error&hl=en&num=10", agent
    yield (
        "ghcr.example",
        f"/v2/homebrew/core/blobs/sha256:{letters(64, hexes)}",
        "",
        {"Authorization": "Bearer QQ=="},
    )


def test_real_work_is_not_stopped(judge: Judge) -> None:
    """No block in the default profile on what making this project sends; the rate is printed."""
    stopped, count, size = [], 0, 0
    for what, data, kind, coding in _benign():
        count += 1
        size += len(data)
        found = judge.body(data, kind, coding)
        if found:
            stopped.append((what, [entry.text for entry in found]))
    for host, path, query, headers in _benign_heads():
        count += 1
        found = judge.request("GET", host, path, query, headers)
        if found:
            stopped.append((f"{host}{path}", [entry.text for entry in found]))
    rate = 100 * len(stopped) / count
    print(f"\n{len(stopped)} of {count} requests stopped ({size / 1e6:.1f} MB): {rate:.2f} %")
    assert stopped == []


def test_an_engine_that_is_a_program(tmp_path: Path) -> None:
    """The program of the same name fills the same interface, with nothing of our environment."""
    key = "ghp_" + letters(36)
    program = EngineProgram(Path(get_binary_path()))
    hits = program.find(f"token = {key}\n".encode())
    assert [(hit.rule, hit.value.decode()) for hit in hits] == [("github-pat", key)]
    assert program.find(b"nothing here\n") == ()
    assert program.patterns(sure=True) == ()
    for script in ("exit 3", "echo no report", "echo '[{}]'"):
        broken = tmp_path / "gitleaks-broken"
        broken.write_text(f"#!/bin/sh\n{script}\n")
        broken.chmod(0o755)
        with pytest.raises(UnavailableError):
            EngineProgram(broken).find(b"x")
    with pytest.raises(UnavailableError):
        EngineProgram(tmp_path / "absent").find(b"x")


def test_nothing_heavy_is_loaded_by_importing() -> None:
    heavy = (
        "{'hyperscan', 'betterleaks', 'brotli', 'zstandard', 'cryptography', 'asyncio'} & set(sys.modules)"
    )
    modules = ", ".join(f"bot_bottle.pipelock.{name}" for name in ("request", "stream", "session", "loader"))
    code = f"import sys, {modules}; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"
