"""A value is known again by all of it, not by the beginning that a rule is sure of."""

from __future__ import annotations

import base64
import json

import pytest

from bot_bottle.pipelock.extent import whole_id
from bot_bottle.pipelock.finding import Context, value_id
from tests.support.pipelock import letters, own_secrets, scanner

SCANNER = scanner(own=own_secrets())
BEGUN = letters(60)
MINE, OTHERS = (
    f"-----BEGIN PRIVATE KEY-----\n{BEGUN}\n{letters(64)}\n-----END PRIVATE KEY-----\n" for _ in range(2)
)
NPM = f"npm_{letters(36)}"
MACAROON = f"fm2_{letters(700)}"


def _ids(text: str) -> set[str]:
    return {one.value_id for one in SCANNER.scan(text.encode(), Context(content_type="text/plain"))}


def _in_json(text: str) -> str:
    return json.dumps({"a": text, "b": "more"})


def _in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("written", [str, _in_json, _in_base64])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MINE, OTHERS),
        (NPM, NPM + letters(12)),
        (MACAROON, MACAROON + letters(8)),
        (MINE, MINE.partition("-----END")[0]),
    ],
    ids=["private keys", "a token and more", "beyond a rule's reach", "without its end"],
)
def test_two_values_that_begin_alike_are_two(written: object, one: str, other: str) -> None:
    assert callable(written)
    assert _ids(written(f"see {one} there"))
    assert not _ids(written(f"see {one} there")) & (_ids(written(f"see {other} there")) - {""})
    assert _ids(written(f"see {one} there")) == _ids(written(f"see {one} there"))
    # Side by side neither hides the other.
    assert not _ids(written(f"{one} {other}")) <= _ids(written(f"{one} there"))


def test_what_has_no_end_is_nothing_to_say_yes_to() -> None:
    assert _ids(f"see {MINE.partition('-----END')[0]}") == {""}
    assert "" not in _ids(MINE)


def test_a_value_that_stands_by_itself_has_its_own_id() -> None:
    assert whole_id(f"see '{NPM}', twice: {NPM}".encode(), NPM.encode()) == value_id(NPM.encode())
    assert whole_id(b"something else", NPM.encode()) == value_id(NPM.encode())
    assert whole_id(NPM.encode() + b" x" * 9 + (b" " + NPM.encode()) * 70, NPM.encode()) == ""
