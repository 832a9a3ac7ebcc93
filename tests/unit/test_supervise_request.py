"""What an agent may ask for, and how it is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.supervise.ledger import MAX_OPEN, MAX_REQUESTS, PACE, PACE_SECONDS, Answer, Ledger
from bot_bottle.supervise.request import AGENT_KINDS, AgentRequest, RequestError, read_request

_NOW = 1_800_000_000


def _read(kind: str, **arguments: object) -> AgentRequest:
    return read_request(kind, {"reason": "tests", **arguments}, new_id="aaaaaaaa", now=_NOW)  # type: ignore[arg-type]


def test_a_host_is_normalised_and_lists_lose_their_doubles() -> None:
    asked = _read("egress", host="Docs.Example.ORG.", paths=["/a", "/a", "/b"], methods=["get", "GET"])
    assert (asked.host, asked.paths, asked.methods) == ("docs.example.org", ("/a", "/b"), ("GET",))
    assert asked.summary == "GET docs.example.org /a /b"


def test_a_wildcard_stays_one() -> None:
    assert _read("egress", host="*.Example.org").host == "*.example.org"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"host": "https://docs.example.org/x"}, "host"),
        ({"host": "docs.example.org:8443"}, "host"),
        ({"host": "10.0.0.1"}, "addresses"),
        ({"host": "0x7f.1"}, "addresses"),
        ({"host": "[::1]"}, "addresses"),
        ({"host": "localhost"}, "addresses"),
        ({"host": "*"}, "host"),
        ({"host": ""}, "host"),
        ({"host": 5}, "host: write text"),
        ({"host": "a.example", "paths": "/x"}, "paths: write a list"),
        ({"host": "a.example", "paths": ["x"]}, "begin with '/'"),
        ({"host": "a.example", "paths": ["/x\r\nHost: b"]}, "printable"),
        ({"host": "a.example", "paths": ["/"] * 21}, "at most 20"),
        ({"host": "a.example", "methods": ["GET /"]}, "methods"),
        ({"host": "a.example", "auth": {"token_ref": "GITHUB_TOKEN"}}, "unknown argument 'auth'"),
    ],
)
def test_what_cannot_be_asked_is_said(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(RequestError, match=word):
        _read("egress", **arguments)


@pytest.mark.parametrize("kind", AGENT_KINDS)
def test_a_reason_is_needed_and_bounded(kind: str) -> None:
    for reason in (None, "", "  ", "x" * 2001):
        with pytest.raises(RequestError, match="reason"):
            _read(kind, reason=reason)


def test_what_a_terminal_would_obey_never_stays() -> None:
    asked = _read("capability", text="a\x1b]0;owned\x07b\u202ec", reason="x\x9b2J\rhidden")
    assert (asked.text, asked.reason) == ("a?]0;owned?b?c", "x?2J?hidden")


def test_git_and_capability_need_something_to_ask_for() -> None:
    with pytest.raises(RequestError, match="refs or paths"):
        _read("git", remote="origin")
    with pytest.raises(RequestError, match="text or dockerfile"):
        _read("capability")
    assert _read("git", remote="origin", refs=["refs/heads/x"]).summary == "push to origin: refs/heads/x"


@given(
    st.sampled_from(AGENT_KINDS),
    st.dictionaries(
        st.sampled_from(["host", "paths", "methods", "remote", "refs", "text", "dockerfile", "reason"]),
        st.one_of(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=4), st.none(), st.integers()),
    ),
)
def test_anything_is_a_request_or_one_sentence(kind: str, arguments: dict[str, object]) -> None:
    try:
        asked = _read(kind, **arguments)
    except RequestError as error:
        assert str(error).isprintable()  # noqa: PT017 - either outcome is right
        return
    assert AgentRequest.from_record(asked.to_record()) == asked
    for text in (asked.reason, asked.text, asked.host, asked.remote, *asked.paths, *asked.refs):
        assert all(char.isprintable() or char == "\n" for char in text)


def _ask(ledger: Ledger, number: int, now: int) -> tuple[AgentRequest, bool]:
    arguments = {"host": f"h{number}.example.org", "reason": "tests"}
    return ledger.ask("egress", arguments, new_id=f"{number:08d}", now=now)


def test_the_same_question_twice_is_one_request() -> None:
    ledger = Ledger()
    first, new = _ask(ledger, 1, _NOW)
    again, new_again = ledger.ask(
        "egress", {"host": "H1.example.org", "reason": "another reason"}, new_id="bbbbbbbb", now=_NOW
    )
    assert (new, new_again, again) == (True, False, first)
    ledger.answer(first.id, Answer(verdict="denied"))
    assert _ask(ledger, 1, _NOW + PACE_SECONDS)[1], "once answered it may be asked again"


def test_what_is_granted_is_not_asked_for_again_while_it_holds() -> None:
    ledger = Ledger()
    holding: set[str] = set()
    first, _new = _ask(ledger, 1, _NOW)

    def again(**other: object) -> tuple[AgentRequest, bool]:
        arguments = {"host": "h1.example.org", "reason": "once more", **other}
        number = f"{len(ledger.open):08d}" if other else "bbbbbbbb"
        return ledger.ask("egress", arguments, new_id=number, now=_NOW, holds=holding.__contains__)

    ledger.answer(first.id, Answer(verdict="approved", terms="any method h1.example.org, until 12:00"))
    holding.add(first.id)
    assert again() == (first, False)
    assert again(methods=["POST"])[1], "what is more than was granted is asked for"
    holding.clear()
    assert again()[1], "a grant that has ended is asked for again"


def test_pace_open_requests_and_their_number_are_bounded() -> None:
    ledger = Ledger()
    for number in range(PACE):
        _ask(ledger, number, _NOW)
    with pytest.raises(RequestError, match=f"at most {PACE} requests"):
        _ask(ledger, 99, _NOW + 1)
    later = _NOW + PACE_SECONDS
    for number in range(PACE, MAX_OPEN):
        _ask(ledger, number, later)
    with pytest.raises(RequestError, match=f"{MAX_OPEN} requests are open"):
        _ask(ledger, 99, later)
    for number in range(MAX_REQUESTS):
        if ledger.open:
            ledger.answer(ledger.open[0].id, Answer(verdict="denied"))
        if number >= MAX_OPEN:
            _ask(ledger, number, later + number * PACE_SECONDS)
    for one in ledger.open:
        ledger.answer(one.id, Answer(verdict="denied"))
    with pytest.raises(RequestError, match="can make no more"):
        _ask(ledger, 99_999, later + 10**6)


def test_a_request_is_answered_once() -> None:
    ledger = Ledger()
    asked, _new = _ask(ledger, 1, _NOW)
    ledger.answer(asked.id, Answer(verdict="approved"))
    for one in (asked.id, "zzzzzzzz"):
        with pytest.raises(RequestError, match=r"approved already|no request"):
            ledger.answer(one, Answer(verdict="denied"))


def test_a_dockerfile_is_shown_as_it_was_written() -> None:
    written = "FROM x\nRUN <<EOF\n\tmake\t-j\nEOF\n"
    asked = read_request("capability", {"dockerfile": written, "reason": "y"}, new_id="aaaaaaaa", now=_NOW)
    assert asked.dockerfile == written
    odd = read_request(
        "capability", {"dockerfile": "FROM x\x1b[2J\r\v", "reason": "y"}, new_id="aaaaaaaa", now=_NOW
    )
    assert odd.dockerfile == "FROM x?[2J??"


def test_a_tab_stays_in_a_file_and_is_a_space_in_words() -> None:
    asked = _read("capability", dockerfile="FROM a\n\tRUN b\x1b", reason="a\tb\x1b[31m", text="c\td")
    assert asked.dockerfile == "FROM a\n\tRUN b?"
    assert (asked.reason, asked.text) == ("a b?[31m", "c d")
