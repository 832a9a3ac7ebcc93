"""What a sidecar in a container says: taken piece by piece, awaited within bounds, never held whole."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from bot_bottle.audit_chain import GENESIS, ChainEnd
from bot_bottle.audit_copy import AuditCopy
from bot_bottle.backend.docker.conversation import Conversation
from bot_bottle.backend.docker.streams import STDERR, STDOUT
from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 20.0


def say(talk: Conversation, **message: object) -> None:
    talk.hear(STDOUT, json.dumps(message).encode() + b"\n")


def test_messages_come_in_any_pieces() -> None:
    talk = Conversation()
    data = json.dumps({"event": "ca", "pem": "PEM"}).encode() + b'\n{"event": "ready"}\n'
    for byte in data:
        talk.hear(STDOUT, bytes([byte]))
    assert (talk.ca_pem, talk.ready) == ("PEM", True)
    talk.wait(lambda: talk.ready, SECONDS, "be ready")


def test_who_waits_is_woken() -> None:
    talk = Conversation()
    thread = threading.Thread(target=lambda: say(talk, event="synced", id=3))
    thread.start()
    talk.wait(lambda: talk.synced >= 3, SECONDS, "pass its log on")
    thread.join()


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"[]\n",
        b'{"event":"other"}\n',
        b'{"event":"audit","at":0,"data":"x"}\n',
        b"x" * (9 << 20),
    ],
)
def test_what_no_sidecar_says_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        Conversation().hear(STDOUT, line)


def test_a_refusal_is_told_in_its_words() -> None:
    talk = Conversation()
    say(talk, event="error", message="the audit log cannot be opened: \x1b[31mno")
    talk.end()
    with pytest.raises(LaunchError, match=r"refused to start: the audit log cannot be opened: \?\[31mno"):
        talk.wait(lambda: bool(talk.ca_pem), SECONDS, "make its CA")


def test_a_death_is_told_with_its_last_words_which_stay_short() -> None:
    talk = Conversation()
    for _ in range(1000):
        talk.hear(STDERR, b"noise " * 100)
    talk.hear(STDERR, b"\nImportError: no uvloop\n")
    talk.end()
    with pytest.raises(
        LaunchError, match="before it could make its CA; its last words: ImportError: no uvloop"
    ):
        talk.wait(lambda: bool(talk.ca_pem), SECONDS, "make its CA")


def test_a_failure_of_ours_is_told_as_it_is() -> None:
    talk = Conversation()
    talk.end("the sidecar's container could not be started: no such image")
    with pytest.raises(LaunchError, match=r"^the sidecar's container could not be started: no such image$"):
        talk.wait(lambda: talk.ready, SECONDS, "take its sockets")


def test_waiting_is_bounded() -> None:
    with pytest.raises(LaunchError, match="more than 0 s to make its CA"):
        Conversation().wait(lambda: False, 0.01, "make its CA")


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Conversation, Path]:
    talk = Conversation()
    talk.record_in(AuditCopy.open(tmp_path / "host.jsonl"))
    return talk, tmp_path / "host.jsonl"


def test_the_log_goes_into_the_copy_byte_for_byte(copied: tuple[Conversation, Path]) -> None:
    talk, path = copied
    data = bytes(range(256)) * 3
    say(talk, event="audit", at=0, data=data[:300].decode("latin-1"))
    say(talk, event="audit", at=300, data=data[300:].decode("latin-1"))
    before = talk.complete
    say(talk, event="end", size=len(data))
    assert (before, talk.complete) == (False, True)
    assert path.read_bytes() == data


def test_a_missing_piece_is_noticed_and_nothing_is_appended_after_it(
    copied: tuple[Conversation, Path],
) -> None:
    talk, path = copied
    say(talk, event="audit", at=0, data="one")
    say(talk, event="audit", at=5, data="three")
    say(talk, event="audit", at=3, data="late")
    say(talk, event="end", size=3)
    assert (talk.copied, path.read_bytes(), talk.complete) == (3, b"one", False)


def test_a_full_disk_is_noticed_and_the_sidecar_goes_on() -> None:
    talk = Conversation()
    copy = AuditCopy(os.open("/dev/full", os.O_WRONLY), ChainEnd(seq=0, prev=GENESIS, size=0))
    talk.record_in(copy)
    say(talk, event="audit", at=0, data="one")
    say(talk, event="end", size=3)
    copy.close()
    assert "No space" in talk.copy_fault
    assert not talk.complete


def test_an_end_is_awaited_as_long_as_the_log_moves_on(copied: tuple[Conversation, Path]) -> None:
    talk, _path = copied
    early = talk.wait_for_end(0.01)
    talk.end()
    assert (early, talk.wait_for_end(SECONDS)) == (False, True)
