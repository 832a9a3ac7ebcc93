"""A yes that is written down: into the bottle's file, or as the bottle's own Dockerfile."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bot_bottle import bottle_state, paths
from bot_bottle.audit_copy import complete
from bot_bottle.audit_reading import verify
from bot_bottle.cli import main
from bot_bottle.errors import LaunchError, UnavailableError, UsageError
from bot_bottle.supervise import decide
from bot_bottle.supervise.decide import Choice, approve, prospect
from bot_bottle.supervise.operator import all_requests
from tests.support.family import wait_until
from tests.support.served_log import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bot_bottle.supervise.operator import Asked
    from tests.support.served_log import ServedLog

ONE = "worker-abcde"
BOTTLE = """---
agent_provider: {template: command, argv: [/bin/sh], dockerfile: DOCKERFILE}
supervise: true
egress:
  routes:
    - host: a.example  # the first
---
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path))
    tmp_path.chmod(0o700)
    for folder in ("bottles", "agents", "images"):
        (tmp_path / folder).mkdir(mode=0o700)
    write(tmp_path / "images" / "Dockerfile", "FROM base\nRUN a\n")
    write(
        tmp_path / "bottles" / "b.md", BOTTLE.replace("DOCKERFILE", str(tmp_path / "images" / "Dockerfile"))
    )
    write(tmp_path / "agents" / "worker.md", "---\nbottle: b\n---\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


@pytest.fixture
def bottle(home: Path) -> Iterator[ServedLog]:
    del home
    with served(ONE, backend="docker") as one:
        yield one


def asked(bottle: ServedLog) -> Asked:
    wait_until(lambda: bool(all_requests(ONE)), "the request")
    (one,) = all_requests(ONE)
    assert one.identity == bottle.identity
    return one


def test_a_route_is_written_into_the_bottles_file(
    bottle: ServedLog, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bottle.ask("a2345678", host="*.docs.example", paths=["/3/"], methods=["POST"])
    asked(bottle)
    before = (home / "bottles" / "b.md").read_text()
    assert main(["approve", "a2345678", "--edit"]) == 2, "nobody is asked without a terminal"
    assert (home / "bottles" / "b.md").read_text() == before
    assert main(["approve", "a2345678", "--edit", "--for", "2h", "--yes"]) == 2
    capsys.readouterr()
    assert main(["approve", "a2345678", "--edit", "--yes"]) == 0
    said = capsys.readouterr().err
    assert '+    - host: "*.docs.example"' in said
    for note in ("every name below docs.example is opened", "POST can send out"):
        assert note in said
    wanted = '    - host: "*.docs.example"\n      path_allowlist: [/3/]\n      methods: [POST]\n'
    assert (home / "bottles" / "b.md").read_text() == before.replace("first\n", f"first\n{wanted}")
    (order,) = [order for order in bottle.orders if order["order"] == "answer"]
    assert (order["grant"]["until"], order["grant"]["uses"]) == (None, None)
    assert f"{home / 'bottles' / 'b.md'} holds it for later starts" in said
    assert main(["check"]) == 0


def test_a_host_that_the_file_has_already_is_for_a_hand(bottle: ServedLog) -> None:
    bottle.ask("a2345678", host="a.example")
    with pytest.raises(UsageError, match="by hand: bot-bottle edit b"):
        prospect(asked(bottle), Choice(lasting=decide.MANIFEST))


def test_what_does_not_arrive_is_not_written(bottle: ServedLog, home: Path) -> None:
    bottle.ask("a2345678", host="docs.example")
    one, choice = asked(bottle), Choice(lasting=decide.MANIFEST)
    before = (home / "bottles" / "b.md").read_text()
    seen = prospect(one, choice)
    bottle.end()
    with pytest.raises(LaunchError):
        approve(one, choice, seen)
    assert (home / "bottles" / "b.md").read_text() == before
    write(home / "bottles" / "b.md", before + "x")
    with pytest.raises(UsageError, match="changed by somebody else"):
        approve(one, choice, seen)


def test_a_dockerfile_becomes_the_bottles_own(bottle: ServedLog, capsys: pytest.CaptureFixture[str]) -> None:
    bottle.ask(
        "a2345678", kind="capability", dockerfile="FROM base\nRUN a\nRUN apt-get install -y jq\nCOPY x y"
    )
    asked(bottle)
    place = bottle_state.bottle_state_dir(ONE) / "Dockerfile"
    assert main(["approve", "a2345678"]) == 2
    assert not place.exists()
    capsys.readouterr()
    assert main(["approve", "a2345678", "--yes"]) == 0
    said = capsys.readouterr().err
    assert "+RUN apt-get install -y jq" in said
    assert " RUN a" in said, "compared with what is built now"
    for part in (
        "not under this bottle's egress",
        "COPY has no files to take here",
        f"stop {ONE}, then bot-bottle resume {ONE}",
    ):
        assert part in said
    assert place.read_text().endswith("COPY x y\n")
    assert place.stat().st_mode & 0o777 == 0o600


def test_a_backend_without_images_says_so(bottle: ServedLog, home: Path) -> None:
    metadata = bottle_state.read_metadata(ONE)
    assert metadata is not None
    bottle_state.write_metadata(replace(metadata, backend="bubblewrap"))
    bottle.ask("a2345678", kind="capability", dockerfile="FROM base\n")
    found = approve(asked(bottle), Choice())
    assert found.edit is None
    assert "runs this machine's programs" in found.opens
    bottle_state.write_metadata(replace(metadata, backend="smolmachines"))
    assert "a machine keeps the image that it was made from" in prospect(asked(bottle), Choice()).opens


def test_the_wire_holds_no_edit(bottle: ServedLog) -> None:
    bottle.ask("a2345678", host="docs.example")
    approve(asked(bottle), Choice(lasting=decide.MANIFEST))
    assert "edit" not in json.dumps(bottle.orders)


def test_an_answer_to_a_kept_bottle_says_what_holds_as_one_to_a_running_one_does(home: Path) -> None:
    del home
    with served(ONE, backend="docker") as bottle:
        bottle.ask("a2345678", host="docs.example", methods=["GET"])
        bottle.ask("b2345678", kind="git", remote="origin", refs=["fix-1"])
        wait_until(lambda: len(all_requests(ONE)) == 2, "the requests")
    assert main(["approve", "a2345678", "--yes", "--for", "bottle"]) == 0
    assert main(["approve", "b2345678", "--yes", "--for", "once"]) == 0
    terms = [one.answer.terms for one in all_requests(ONE, answered=True) if one.answer]
    assert terms == [
        "GET docs.example (all paths), for as long as this bottle lives",
        "pushes to origin: branches fix-1, for one push",
    ]


@pytest.mark.parametrize("reached", [True, False])
def test_an_answer_to_a_kept_bottle_comes_after_what_of_its_record_is_elsewhere(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, reached: bool
) -> None:
    """A launcher was killed, and the log's end lies where its writer was: the answer must not fork it."""
    log, elsewhere = paths.audit_path(ONE), home / "volume.jsonl"
    with served(ONE, backend="docker") as bottle:
        bottle.ask("a2345678", host="docs.example", methods=["GET"])
        wait_until(lambda: len(all_requests(ONE)) == 1, "the request")
        here = log.stat().st_size
        bottle.request(path="/heard-of-only-there")
        wait_until(lambda: log.stat().st_size > here, "the request that follows")
    whole = log.read_bytes()
    elsewhere.write_bytes(whole)
    log.write_bytes(whole[: here + 20])  # in the middle of a line

    class Elsewhere:
        def complete_record(self, identity: str) -> None:
            assert bottle_state.is_running(identity), "nothing keeps a new session out"
            if not reached:
                raise UnavailableError("no engine answers")
            complete(log, elsewhere)

    monkeypatch.setattr("bot_bottle.backend.registry.get_bottle_backend", lambda _name: Elsewhere())
    assert main(["approve", "a2345678", "--yes", "--for", "bottle"]) == (0 if reached else 3)
    if not reached:
        assert "no engine answers" in capsys.readouterr().err
        assert log.read_bytes() == whole[: here + 20]
        return
    assert log.read_bytes().startswith(whole)
    assert verify(log).ok
    assert [one.answer.verdict for one in all_requests(ONE, answered=True) if one.answer] == ["approved"]


def test_a_push_is_written_into_the_bottles_file(
    bottle: ServedLog, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "bottles" / "b.md"
    remote = "git:\n  remotes:\n    git.test:\n      Name: origin\n      Upstream: https://git.test/a.git\n"
    write(path, path.read_text().replace("egress:\n", f"{remote}egress:\n"))
    before = path.read_text()
    bottle.ask("a2345678", kind="git", remote="origin", refs=["refs/heads/fix-1", "x"], paths=[".github/**"])
    asked(bottle)
    assert main(["approve", "a2345678", "--edit", "--branch", "fix-1", "--yes"]) == 0
    assert '+      Branches: ["bottle/**", fix-1]' in capsys.readouterr().err
    assert path.read_text() == before.replace("/a.git\n", '/a.git\n      Branches: ["bottle/**", fix-1]\n')
    (order,) = [order for order in bottle.orders if order["order"] == "answer"]
    assert (order["verdict"], order["grant"]["push"]["paths"]) == ("changed", [])
    assert (order["grant"]["until"], order["grant"]["uses"]) == (None, None)
    assert main(["check"]) == 0
    bottle.ask("b2345678", kind="git", remote="other", refs=["fix-2"])
    wait_until(lambda: len(all_requests(ONE)) == 2, "the other request")
    assert main(["approve", "b2345678", "--edit", "--yes"]) == 2
    assert "has no remote of the name 'other' itself" in capsys.readouterr().err
