"""Credentials that end while a bottle runs: when they are looked up again, and what comes of it."""

from __future__ import annotations

import base64
import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from bot_bottle import renewal
from bot_bottle.agent_provider import token_file
from bot_bottle.agent_provider.token_command import TOKEN_COMMAND_REF, end_of, token_of
from bot_bottle.agent_provider.token_file import TOKEN_FILE_REF
from bot_bottle.errors import LaunchError, UnavailableError, UsageError
from bot_bottle.renewal import Fresh, Renewal, Renewer, wait_seconds
from bot_bottle.secret import Secret
from tests.support.family import wait_until
from tests.unit.test_agent_provider import login, plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENV = {"PATH": "/usr/bin:/bin"}


def jwt(ends: object) -> str:
    parts = ({"alg": "none"}, {"exp": ends})
    return ".".join(
        [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts] + ["x"]
    )


def fresh(text: str, ends_at: float | None = None) -> Fresh:
    return Fresh(value=Secret(text), ends_at=ends_at)


def test_a_credential_is_looked_up_again_before_its_end() -> None:
    assert wait_seconds(10_000, 1_000) == 9_000 - renewal.MARGIN
    assert 0 < wait_seconds(1_000, 5_000) < 60
    assert wait_seconds(None, 5_000) == renewal.EVERY


@pytest.mark.parametrize(
    ("token", "ends"),
    [(jwt(1234), 1234.0), (jwt("x"), None), (jwt(True), None), (jwt(-1), None), ("a.b.c", None), ("k", None)],
)
def test_only_a_jwt_says_when_it_ends(token: str, ends: float | None) -> None:
    assert end_of(token) == ends


class Session:
    """A bottle's sidecar and its operator, as a renewer meets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, read: Callable[[], Fresh]) -> None:
        for name in ("EVERY", "AGAIN", "AGAIN_ENDED", "_LEAST"):
            monkeypatch.setattr(renewal, name, 0.01)
        self.handed: list[tuple[str, str, str | None]] = []
        self.said: list[str] = []
        self.refusal: Exception | None = None
        self.happened = threading.Event()
        self.read = read

    def run(self, first: Fresh, *, now: float = 0) -> None:
        one = Renewal(token_ref="REF", first=first, read=self.read)
        with Renewer("a-12345", [one], hand_over=self.hand_over, say=self.say, clock=lambda: now):
            assert self.happened.wait(20)

    def hand_over(self, identity: str, token_ref: str, value: Secret | None) -> None:
        if self.refusal:
            raise self.refusal
        self.handed.append((identity, token_ref, None if value is None else value.reveal()))
        self.happened.set()

    def say(self, text: str) -> None:
        self.said.append(text)
        self.happened.set()


def test_a_new_value_is_handed_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["old", "new"])
    again = threading.Event()

    def read() -> Fresh:
        try:
            return fresh(next(answers))
        except StopIteration:
            again.set()
            return fresh("new")

    session = Session(monkeypatch, read)
    one = Renewal(token_ref="REF", first=fresh("old"), read=read)
    with Renewer("a-12345", [one], hand_over=session.hand_over, say=session.say):
        assert again.wait(20)
    assert session.handed == [("a-12345", "REF", "new")]
    assert session.said == []


def test_what_nothing_has_renewed_is_told_to_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(monkeypatch, lambda: fresh("old", 1_000))
    session.run(fresh("old", 1_000), now=900)
    (said,) = set(session.said)
    assert "REF of a-12345 is good until 1970-01-01 00:16 UTC only" in said
    assert session.handed == []


def test_what_has_ended_is_refused_once_and_good_again_when_it_is_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, looks = [900.0], [0]
    value = ["old"]

    def read() -> Fresh:
        looks[0] += 1
        return fresh(value[0], 1_000 if value[0] == "old" else 9_000)

    session = Session(monkeypatch, read)
    one = Renewal(token_ref="REF", first=fresh("old", 1_000), read=read)
    with Renewer("a-12345", [one], hand_over=session.hand_over, say=session.say, clock=lambda: now[0]):
        wait_until(lambda: looks[0] > 2, "some looks")
        assert session.handed == [], "it is good still"
        now[0] = 1_001
        wait_until(lambda: session.handed == [("a-12345", "REF", None)], "its end")
        before = looks[0]
        wait_until(lambda: looks[0] > before + 2, "more looks")
        assert session.handed == [("a-12345", "REF", None)], "told once"
        value[0] = "new"
        wait_until(lambda: session.handed[1:] == [("a-12345", "REF", "new")], "the new one")
    assert "REF of a-12345 has ended: what needs it is refused" in session.said[-1]


def test_a_clock_that_jumps_is_seen_while_a_look_is_far_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a credential's end and back again: refused, told, and used again; no look was due for hours."""
    now = [1_000.0]
    session = Session(monkeypatch, lambda: fresh("old", 90_000))
    monkeypatch.setattr(renewal, "_LOOK", 0.01)
    one = Renewal(token_ref="REF", first=fresh("old", 90_000), read=session.read)
    with Renewer("a-12345", [one], hand_over=session.hand_over, say=session.say, clock=lambda: now[0]):
        now[0] += 86_400 * 2
        wait_until(lambda: session.handed == [("a-12345", "REF", None)], "its end")
        now[0] -= 86_400 * 2
        wait_until(lambda: session.handed[1:] == [("a-12345", "REF", "old")], "its use")
    assert "is good still" in session.said[-1]


def test_a_sidecar_that_cannot_be_told_of_the_end_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(monkeypatch, lambda: fresh("old", 1_000))
    session.refusal = LaunchError("the sidecar of a-12345 is lost")
    one = Renewal(token_ref="REF", first=fresh("old", 1_000), read=session.read)
    with Renewer("a-12345", [one], hand_over=session.hand_over, say=session.say, clock=lambda: 2_000):
        wait_until(lambda: any("could not be told" in said for said in session.said), "the trouble")
        session.refusal = None
        wait_until(lambda: session.handed == [("a-12345", "REF", None)], "its end")


def test_a_source_that_fails_is_told_without_what_it_said_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> Fresh:
        raise RuntimeError("the-real-" + "token")

    session = Session(monkeypatch, read)
    session.run(fresh("old"))
    (said,) = set(session.said)
    assert "could not be renewed (RuntimeError)" in said
    assert "the-real" not in said


def test_a_sidecar_that_refuses_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(monkeypatch, lambda: fresh("new"))
    session.refusal = LaunchError("the sidecar of a-12345 is lost")
    session.run(fresh("old"))
    assert "could not be renewed: the sidecar of a-12345 is lost" in session.said[0]
    session.refusal = None
    session.happened.clear()
    session.run(fresh("old"))
    assert session.handed[0] == ("a-12345", "REF", "new")


def test_a_command_prints_the_credential() -> None:
    assert token_of(["/bin/sh", "-c", "echo $WHO"], {**ENV, "WHO": "me"}).value.reveal() == "me"
    ends = token_of(["/bin/echo", jwt(99)], ENV).ends_at
    assert ends == 99.0


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo tok-123; exit 3", "ended with exit code 3"),
        (":", "printed nothing"),
        ("printf 'tok-123\\nx'", "more than one line"),
        ("printf 'tok-123\\303\\251'", "no HTTP header may carry"),
    ],
)
def test_a_command_that_prints_no_credential_is_one_sentence(script: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        token_of(["/bin/sh", "-c", script], ENV)
    assert said in str(caught.value)
    assert "tok-123" not in str(caught.value)
    with pytest.raises(UnavailableError):
        token_of(["/nowhere/at-all"], ENV)


def test_a_file_holds_the_credential_and_is_looked_at_often(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("  the-real-one\n")
    path.chmod(0o600)
    made = plan(tmp_path, token_file=str(path))
    (one,) = made.renewals
    assert (one.token_ref, one.first.value.reveal()) == (TOKEN_FILE_REF, "the-real-one")
    assert made.provisioned_env == {TOKEN_FILE_REF: "the-real-one"}
    assert one.every is not None
    assert one.every < 60
    path.write_text(jwt(99))
    assert (one.read().value.reveal(), one.read().ends_at) == (jwt(99), 99.0)
    assert token_file.renewal("~/token", {"HOME": str(tmp_path)}).first.value.reveal() == jwt(99)


def test_a_file_that_holds_no_credential_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "token"

    def refusal() -> str:
        with pytest.raises(UsageError) as caught:
            token_file.token_in(path)
        assert "tok-123" not in str(caught.value)
        return str(caught.value)

    assert "cannot be read: No such file" in refusal()
    for content, said in (
        ("", "holds nothing"),
        ("tok-123\nx", "more than one line"),
        ("tok-123é", "no HTTP"),
    ):
        path.write_text(content)
        path.chmod(0o600)
        assert said in refusal()
    path.write_text("tok-123")
    path.chmod(0o622)
    assert "chmod 600" in refusal()
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "is no file" in refusal()


def test_claude_takes_its_token_from_a_command(tmp_path: Path) -> None:
    made = plan(tmp_path, token_command=("/bin/echo", "the-real-one"))
    (one,) = made.renewals
    assert (one.token_ref, one.first.value.reveal()) == (TOKEN_COMMAND_REF, "the-real-one")
    assert made.provisioned_env == {TOKEN_COMMAND_REF: "the-real-one"}
    (route,) = made.egress_routes
    assert route.auth is not None
    assert (route.auth.scheme, route.auth.token_ref) == ("Bearer", TOKEN_COMMAND_REF)
    assert login(made)["accessToken"] != "the-real-one"
    assert "the-real-one" not in repr(made)
