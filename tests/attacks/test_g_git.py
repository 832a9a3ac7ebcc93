"""G4: pushing over HTTP, whatever the client, the host and the spelling."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.attacks import inside
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from tests.support.lab import RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

PUSHES = (
    ("GET", "/{m}/repo.git/info/refs?service=git-receive-pack"),
    ("GET", "/{m}/repo.git/info/refs?x=1&service=git-receive-pack"),
    ("GET", "/{m}/repo.git/info/refs?service=git-upload-pack&service=git-receive-pack"),
    ("GET", "/{m}/repo.git/info/refs?service=git%2Dreceive%2Dpack"),
    ("GET", "/{m}/repo.git/info/refs?%73ervice=git-receive-pack"),
    ("GET", "/{m}/repo.git/info/refs?service=GIT-RECEIVE-PACK"),
    ("GET", "/{m}/repo.git/info/refs?service=git-receive-pack;x"),
    ("GET", "/{m}/repo.git/info/refs;service=git-receive-pack?service=git-receive-pack"),
    ("GET", "/{m}/repo.git/info/%72efs?service=git-receive-pack"),
    ("GET", "/{m}/repo.git//info//refs?service=git-receive-pack"),
    ("GET", "/{m}/repo.git/info/refs/?service=git-receive-pack"),
    ("GET", "/{m}/repo.git/x/../info/refs?service=git-receive-pack"),
    ("POST", "/{m}/repo.git/git-receive-pack"),
    ("POST", "/{m}/repo.git/git-receive-pack/"),
    ("POST", "/{m}/repo.git/git%2dreceive%2dpack"),
    ("POST", "/{m}/repo.git/%67it-receive-pack"),
    ("POST", "/{m}/repo.git/GIT-RECEIVE-PACK"),
    ("POST", "/{m}/repo.git/git-receive-pack;x=y"),
    ("POST", "/{m}/repo.git//git-receive-pack?x=y"),
    ("PUT", "/{m}/repo.git/git-receive-pack"),
)


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize(("method", "target"), PUSHES)
def test_g4_no_spelling_of_a_push_leaves(
    bottle: RunningBottle, world: World, scheme: str, method: str, target: str
) -> None:
    marker = new_marker("g4")
    code = """
if scheme == "https":
    sock, _ = connect("allowed.test:443")
    sock, prefix = tls(sock, "allowed.test"), ""
else:
    sock, prefix = proxy(), "http://allowed.test"
rest = "HTTP/1.1\\r\\nHost: allowed.test\\r\\nContent-Length: 0\\r\\n\\r\\n"
answer = ask(sock, f"{method} {prefix}{target} {rest}")
tell(answer=answer)
"""
    answer = inside.run(bottle, code, scheme=scheme, method=method, target=target.format(m=marker))["answer"]
    assert world.reached(marker) == []
    assert inside.refusal(answer)["reason"] in {"git_push_denied", "path_ambiguous"}, answer
    assert bottle.denied(marker)


def test_g4_fetching_is_not_pushing(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("g4")
    url = f"https://allowed.test/{marker}/repo.git"
    bottle.sh(
        f"curl -sS -m 5 '{url}/info/refs?service=git-upload-pack'; curl -sS -m 5 -d x {url}/git-upload-pack"
    )
    seen = [seen.target for seen in world.records().requests if marker in seen.target]
    assert [target.rpartition("/")[2] for target in seen] == [
        "refs?service=git-upload-pack",
        "git-upload-pack",
    ]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("host", ["allowed.test", "api.test", "{m}.wild.test", "{m}.evil.test"])
def test_g4_git_itself_cannot_push(bottle: RunningBottle, world: World, host: str) -> None:
    marker = new_marker("g4")
    url = f"https://{host.format(m=marker)}/{marker}.git"
    result = bottle.sh(
        "rm -rf /tmp/repo && git init -q /tmp/repo && cd /tmp/repo && git -c user.name=a -c user.email=a@b.c"
        f" commit -q --allow-empty -m x && GIT_TERMINAL_PROMPT=0 git push {url} HEAD:refs/heads/x"
    )
    assert result.returncode != 0
    assert "403" in result.err
    assert world.reached(marker) == []
    assert {line["reason"] for line in bottle.denied(marker)} == {"git_push_denied"}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_g4_git_can_read_from_an_allowed_host(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("g4")
    bottle.sh(f"GIT_TERMINAL_PROMPT=0 git ls-remote https://allowed.test/{marker}.git")
    assert world.reached(marker)


@pytest.mark.parametrize(
    ("host", "port"), [("allowed.test", 22), ("ssh.github.com", 443), ("allowed.test", 9418)]
)
def test_g4_git_over_other_protocols(bottle: RunningBottle, world: World, host: str, port: int) -> None:
    marker = new_marker("g4")
    code = """
results = []
for opener in ("tunnel", "direct"):
    try:
        if opener == "tunnel":
            sock, answer = connect(f"{host}:{port}")
        else:
            sock = socket.create_connection((host, port))
        sock.sendall(f"SSH-2.0-{marker}\\r\\n".encode())
        results.append(sock.recv(65536).decode("latin-1")[:40])
    except OSError as error:
        results.append("error: " + str(error))
tell(results=results)
"""
    results = inside.run(bottle, code, host=host, port=port, marker=marker)["results"]
    assert not any("SSH" in result for result in results)
    assert world.reached(marker) == []


#: What changes a repository without a push: REST and GraphQL of the usual forges.
FORGE_WRITES = (
    ("POST", "/repos/{m}/r/git/refs"),
    ("PATCH", "/repos/{m}/r/git/refs/heads/main"),
    ("DELETE", "/repos/{m}/r/git/refs/heads/main"),
    ("PUT", "/repos/{m}/r/contents/README.md"),
    ("POST", "/repos/{m}/r/merges"),
    ("PUT", "/repos/{m}/r/pulls/1/merge"),
    ("POST", "/repos/{m}/r/actions/workflows/1/dispatches"),
    ("POST", "/api/v4/projects/{m}/repository/commits"),
    ("POST", "/api/v1/repos/{m}/r/contents/README.md"),
    ("POST", "/graphql?{m}"),
    ("POST", "/api/graphql?{m}"),
)


@pytest.mark.parametrize(
    ("host", "reason"), [("read.test", "method_not_allowed"), ("{m}.evil.test", "host_not_allowed")]
)
def test_g4_a_forge_is_not_written_to_by_its_api(
    bottle: RunningBottle, world: World, host: str, reason: str
) -> None:
    marker = new_marker("g4")
    base = f"https://{host.format(m=marker)}"
    asked = [
        f"curl -sS -m 10 -X {method} -d '{{}}' '{base}{target.format(m=marker)}'; printf '\\1'"
        for method, target in FORGE_WRITES
    ]
    said = bottle.sh("; ".join(asked), timeout=120).out.split("\1")
    answers = [json.loads(one) for one in said if one]
    assert [answer.get("reason") for answer in answers] == [reason] * len(FORGE_WRITES)
    assert world.reached(marker) == []
    assert {line["reason"] for line in bottle.denied(marker)} == {reason}
