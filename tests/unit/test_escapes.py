"""What of an agent's output reaches the operator's terminal, however it is cut into pieces."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.attach.escapes import EscapeGuard

#: Drawing, and what programs ask a terminal for.
PASSES = [
    b"plain text\r\n\tand \xc3\xa9\xe2\x82\xac\xc2\xa0",
    b"\x1b[1;31mred\x1b[0m\x1b[2J\x1b[10;20H\x1b[?1049h\x1b[?2004h\x1b[?25l\x1b7\x1b8\x1b(B\x1b=\x1b>",
    b"\x1b[6n\x1b[c\x1b[>c\x1b[>q\x1b[?u\x1b[>1u\x1b[<u\x1b[?2026$p\x1b[18 q",
    b"\x1b]0;a title\x07\x1b]2;another\x1b\\\x1b]8;;https://a.example/\x1b\\link\x1b]8;;\x1b\\",
    b"\x1b]11;?\x1b\\\x1b]10;?\x07\x1b]4;1;?\x07\x1b]104\x07\x1b]9;4;1;50\x07",
    b"\x1b[8;24;80t",
]
#: The clipboard, reports of titles and windows, the printer, strings for others than this terminal, notices.
STAYS = [
    b"\x1b]52;c;Y3VybCBldmlsfHNo\x07",
    b"\x1b]52;c;?\x1b\\",
    b"\xc2\x9d52;c;Y3VybA==\xc2\x9c",
    b"\x1b]052;c;Y3VybA==\x07",
    b"\x1b]9;bot-bottle: approve it\x07",
    b"\x1b]777;notify;bot-bottle;approve it\x07",
    b"\x1b]1337;File=name=eA==;inline=0:eA==\x07",
    b"\x1b]50;?\x07",
    b"\x1b[21t",
    b"\x1b[20t",
    b"\x1b[14t",
    b"\xc2\x9b21t",
    b"\x1b[5i",
    b"\x1b[?5i",
    b"\x1bP$qm\x1b\\",
    b"\x1bP+q544e\x1b\\",
    b"\x1bPtmux;\x1b\x1b]52;c;Y3VybA==\x07\x1b\\",
    b"\x1b]0;x\x1b]52;c;Y3VybA==\x07",
    b"\x1b]0;x\xc2\x9d52;c;Y3VybA==\x07",
    b"\x1b\n]52;c;Y3VybA==\x07",
    b"\x1b]5\n2;c;Y3VybA==\x07",
    b"\x1b[2\x001t",
    b"\x1b\x07[2\x0b1t",
    b"\x1b[021t",
    b"\x1b_Gf=100;AAAA\x1b\\",
    b"\x1b^private\x1b\\",
    b"\x1bXstring\x1b\\",
    b"\xc2\x90$qm\xc2\x9c",
]
ASKS = [
    b"\x1b[6n",
    b"\x1b[5n",
    b"\x1b[c",
    b"\x1b[>c",
    b"\x1b[>q",
    b"\x1b[?u",
    b"\x1b[?2026$p",
    b"\x1b]11;?\x07",
    b"\x1b[0x",
    b"\x1b[1$w",
    b"\x1b[1;1;1;1;1;1*y",
    b"\x1b[?2;1;0S",
    b"\x1bZ",
    b"\x1b\x07Z",
    b"\xc2\x9a",
    b"\x1b\x05[c",
]


@pytest.mark.parametrize("text", PASSES)
def test_what_draws_passes_as_it_is(text: bytes) -> None:
    assert EscapeGuard().feed(text) == text


@pytest.mark.parametrize("text", STAYS)
def test_what_reaches_beyond_the_screen_is_left_out(text: bytes) -> None:
    shown = EscapeGuard().feed(b"before" + text + b"after")
    assert (shown.startswith(b"before"), shown.endswith(b"after")) == (True, True)
    for part in (
        b"52;",
        b"curl",
        b"Y3Vy",
        b"notify",
        b"approve",
        b"1t",
        b"0t",
        b"4t",
        b"5i",
        b"\x1bP",
        b"\x1b_",
    ):
        assert part not in shown
    assert shown.replace(b"\x18", b"").replace(b"\x1b\\", b"").replace(b"\x1b", b"") == b"beforeafter"


@pytest.mark.parametrize("text", ASKS)
def test_what_was_asked_before_is_not_asked_again(text: bytes) -> None:
    assert EscapeGuard(quiet=True).feed(b"a" + text + b"b") == b"a\x18b"
    assert (
        EscapeGuard(quiet=True).feed(b"\x1b[>1u\x1b[<u\x1b[2 q\x1b[!p") == b"\x1b[>1u\x1b[<u\x1b[2 q\x1b[!p"
    )
    sets = b"\x1b[2*x\x1b[3S\x1b[65;1;1;9;9$x\x1b[1'wZ"
    assert EscapeGuard(quiet=True).feed(sets + b"\x05") == sets


@pytest.mark.parametrize("between", [b"\x1bPx\x1b\\", b"\x1b[21t", b"\x1b]52;c;\x07", b"\x1b]0;x\x1b"])
@pytest.mark.parametrize("head", [b"\x1b", b"\xc2", b"\x1b["])
def test_what_is_left_out_joins_nothing(head: bytes, between: bytes) -> None:
    """A sequence that is taken apart by one that is left out does not come together on the screen."""
    for tail in (b"]52;c;Y3VybA==\x07", b"\x9d52;c;Y3VybA==\x07", b"21t"):
        shown = EscapeGuard().feed(head + between + tail)
        assert re.search(rb"\x1b[\x00-\x17]*\]52|\xc2\x9d52|\x1b\[21t", shown) is None


@given(
    st.lists(st.sampled_from([*PASSES, *STAYS, b"\x1b", b"\x1b]", b"\xc2", b"x" * 50]), max_size=8),
    st.lists(st.integers(1, 40), max_size=60),
    st.booleans(),
)
def test_cuts_change_nothing(parts: list[bytes], cuts: list[int], quiet: bool) -> None:
    whole = b"".join(parts)
    guard, shown, rest = EscapeGuard(quiet=quiet), b"", whole
    for cut in cuts:
        shown += guard.feed(rest[:cut])
        rest = rest[cut:]
    shown += guard.feed(rest)
    assert shown == EscapeGuard(quiet=quiet).feed(whole)
    assert re.search(rb"\x1b[\x00-\x17]*\]52", shown) is None


@pytest.mark.parametrize("lead", [b"", b"\xe4", b"\xff", b"\xc2\xa0", b"\x80", "é€🙂".encode()])
def test_an_8_bit_control_that_is_part_of_no_character_is_left_out(lead: bytes) -> None:
    for control in range(0x80, 0xA0):
        for tail in (b"21t", b"52;c;AAAA\x07", b"m and on"):
            text = lead + bytes([control]) + b"x" + tail
            shown = EscapeGuard().feed(text) + EscapeGuard().feed(b"")
            bare = re.sub(
                rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}", b"", shown
            )
            assert not re.search(rb"[\x80-\x9f]", bare), text
            assert shown.endswith(b"x" + tail)
    text = "Ünïcödé Û ‘quoted’ — 😛 \u205b".encode()  # characters whose later bytes are in that range stay
    guard = EscapeGuard()
    assert b"".join(guard.feed(text[at : at + 1]) for at in range(len(text))) == text


def test_a_string_without_end_is_held_within_bounds_and_never_shown() -> None:
    guard = EscapeGuard()
    shown = guard.feed(b"a\x1b]0;")
    for _ in range(100):
        shown += guard.feed(b"x" * 4096)
        assert len(guard._held) < 64 * 1024
    assert shown == b"a\x18"
    assert guard.feed(b"y\x1b") == b""
    assert guard.feed(b"\\and on") == b"and on"
    assert EscapeGuard().feed(b"\x1b]52;c;" + b"A" * 200_000 + b"\x07on") == b"\x18on"


@pytest.mark.parametrize("filling", [b"0", b"\x00", b"\n", b" "])
def test_a_sequence_without_end_costs_little_and_its_end_is_not_missed(filling: bytes) -> None:
    guard = EscapeGuard()
    assert guard.feed(b"a\x1b[" + filling * 100_000) == b"a\x18"
    assert guard.feed(b"21t") == b"21t", "text by now"
    shown = EscapeGuard().feed(b"\x1b[" + filling * 500_000 + b"\x80" + (b"\x1b" + filling * 20) * 20_000)
    assert len(shown) > 500_000
