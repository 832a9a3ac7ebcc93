from __future__ import annotations

import pytest

from bot_bottle.egress.http2.stream import Stream


def taken(stream: Stream, room: int) -> list[bytes]:
    frames = []
    while stream.has_data:
        frames.append(stream.take(room))
    return frames


@pytest.mark.parametrize(
    ("pieces", "room", "frames"),
    [
        ((b"abc",), 5, [b"abc"]),
        ((b"abcdef",), 4, [b"abcd", b"ef"]),
        ((b"a", b"b", b"c"), 2, [b"ab", b"c"]),
        ((b"ab", b"cdef", b"g"), 3, [b"abc", b"def", b"g"]),
        ((b"", b"a"), 3, [b"a"]),
        ((b"",), 3, [b""]),
    ],
    ids=[
        "one piece",
        "a long piece is cut",
        "small ones share",
        "cut where it is full",
        "empty first",
        "empty",
    ],
)
def test_frames_are_filled_in_order_and_nothing_is_lost(
    pieces: tuple[bytes, ...], room: int, frames: list[bytes]
) -> None:
    stream = Stream(1)
    for piece in pieces:
        stream.bring(piece)
    assert stream.unsent == sum(map(len, pieces))
    assert taken(stream, room) == frames
    assert stream.unsent == 0


def test_a_message_is_at_its_end_once_its_body_is_taken() -> None:
    stream = Stream(1)
    stream.bring(b"abc")
    stream.close_with(())
    assert (stream.pending, stream.at_end) == (True, False)
    stream.take(3)
    assert (stream.pending, stream.at_end) == (True, True), "its end is still to be said"


def test_what_is_dropped_is_never_sent() -> None:
    stream = Stream(1)
    stream.bring(b"abc")
    stream.drop()
    assert not stream.pending
    assert not stream.has_data
    assert stream.waiting == 0
