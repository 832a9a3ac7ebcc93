"""Git's framing and the command list of a push, as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.git_gate import pktline, report
from bot_bottle.git_gate.commands import MAX_COMMANDS, Command, CommandError, is_ref_name, parse_commands

A, B, ZERO = "a" * 40, "b" * 40, "0" * 40


def line(ref: str, old: str = ZERO, new: str = A, capabilities: str = "") -> bytes:
    return f"{old} {new} {ref}".encode() + (b"\0" + capabilities.encode() if capabilities else b"")


@given(st.lists(st.one_of(st.none(), st.binary(max_size=200))))
def test_what_is_framed_is_read_back(payloads: list[bytes | None]) -> None:
    data = b"".join(pktline.FLUSH if one is None else pktline.packet(one) for one in payloads)
    assert list(pktline.packets(data)) == payloads


@given(st.binary(max_size=64))
def test_any_bytes_are_packets_or_an_error(data: bytes) -> None:
    try:
        parts = list(pktline.packets(data))
    except pktline.PktLineError:
        return
    assert sum(4 + len(part or b"") for part in parts) == len(data)


@pytest.mark.parametrize(
    "data", [b"0001", b"0002", b"0003", b"fff1" + b"x" * 70000, b"00", b"0009abc", b"zzzz", b"+00a"]
)
def test_what_is_no_line(data: bytes) -> None:
    with pytest.raises(pktline.PktLineError):
        list(pktline.packets(data))


def test_a_line_has_a_greatest_length() -> None:
    assert pktline.packet(b"x" * 65516).startswith(b"fff0")
    with pytest.raises(ValueError, match="65516"):
        pktline.packet(b"x" * 65517)


def test_a_band_is_cut_into_lines() -> None:
    data = bytes(range(256)) * 600
    parts = list(pktline.packets(pktline.band(pktline.PROGRESS, data)))
    assert all(part is not None and part[0] == 2 and len(part) <= 65516 for part in parts)
    assert b"".join((part or b"")[1:] for part in parts) == data


def test_commands_and_capabilities() -> None:
    asked = parse_commands(
        [
            b"shallow " + A.encode(),
            line("refs/heads/x", capabilities=" report-status side-band-64k agent=git/2.39\n"),
            line("refs/heads/y", A, B) + b"\n",
            line("refs/heads/z", A, ZERO),
        ]
    )
    assert [command.action for command in asked.commands] == ["create", "update", "delete"]
    assert "side-band-64k" in asked.capabilities
    assert asked.wants_pack
    assert not parse_commands([line("refs/heads/z", A, ZERO)]).wants_pack


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "no ref"),
        ([line("refs/heads/x", ZERO, ZERO)], "nothing to nothing"),
        ([line("refs/heads/x"), line("refs/heads/x", A, B)], "twice"),
        ([line("refs/heads/x"), line("refs/heads/y", capabilities="atomic")], "first line"),
        ([line("refs/heads/x", capabilities="report-status push-options")], "push options"),
        ([b"push-cert\0 report-status"], "signed"),
        ([line("refs/heads/x", A[:39])], "no ref update"),
        ([line("refs/heads/x", A.upper())], "no ref update"),
        ([b"refs/heads/x"], "no ref update"),
        ([line("heads/x")], "name"),
        ([f"{ZERO} {A} refs/heads/".encode() + b"\xff"], "UTF-8"),
        ([line(f"refs/heads/{n}") for n in range(MAX_COMMANDS + 1)], "several"),
    ],
)
def test_command_lists_that_are_refused(lines: list[bytes], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        parse_commands(lines)


@given(st.lists(st.binary(max_size=120), max_size=4))
def test_any_lines_are_commands_or_an_error(lines: list[bytes]) -> None:
    try:
        asked = parse_commands(lines)
    except CommandError:
        return
    assert all(is_ref_name(command.ref) for command in asked.commands)


@pytest.mark.parametrize(
    "name",
    [
        "refs/heads/a b",
        "refs/heads/a..b",
        "refs/heads/.a",
        "refs/heads/a.",
        "refs/heads/a.lock",
        "refs/heads/a.lock/b",
        "refs/heads//a",
        "refs/heads/a/",
        "refs/heads/a~1",
        "refs/heads/a^",
        "refs/heads/a:b",
        "refs/heads/a@{b",
        "refs/heads/a\\b",
        "refs/heads/a*",
        "refs/heads/a\nb",
        "refs/heads/a\u202eb",
        "HEAD",
        "refs/heads/" + "x" * 1100,
    ],
)
def test_names_that_are_no_refs(name: str) -> None:
    assert not is_ref_name(name)


def test_a_status_travels_in_the_first_band() -> None:
    ok, bad = Command(ref="refs/heads/x", old=ZERO, new=A), Command(ref="refs/heads/y", old=ZERO, new=A)
    data = report.status("ok", {ok: "", bad: "denied\nok refs/heads/y"}, side_band=True)
    outer = list(pktline.packets(data))
    assert outer[-1] is None
    inner = list(pktline.packets((outer[0] or b"")[1:]))
    assert inner == [b"unpack ok\n", b"ok refs/heads/x\n", b"ng refs/heads/y denied?ok refs/heads/y\n", None]
    assert list(pktline.packets(report.status("ok", {ok: ""}, side_band=False)))[-1] is None


def test_text_from_outside_is_one_plain_line() -> None:
    finding = report.PushFinding(
        rule="r", place="a\x1b[2J\nb", commit="c" * 40, line=3, excerpt="AKIA… 20 bytes"
    )
    assert str(finding) == "r: commit cccccccccccc, a?[2J?b:3 (AKIA… 20 bytes)"
    assert len(report.one_line("x" * 5000)) == 401
    assert len(report.finding_lines([finding] * 30)) == 21
