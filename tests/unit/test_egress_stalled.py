"""The bound of what waits in memory for sides that do not keep up."""

from __future__ import annotations

from dataclasses import dataclass

from bot_bottle.egress.stalled import MOST_BYTES, Stalled

KIB = 1024


@dataclass(eq=False)
class Transfer:
    waiting: int
    ended: bool = False

    def give_way(self) -> None:
        self.ended = True


def test_those_that_have_waited_longest_give_way_until_the_rest_fits() -> None:
    stalled = Stalled(most=2048 * KIB)
    transfers = [Transfer(waiting=500 * KIB) for _ in range(6)]
    for transfer in transfers:
        stalled.note(transfer, waits=True)
    assert [transfer.ended for transfer in transfers] == [True, True, False, False, False, False]
    assert len(stalled) == 4


def test_what_goes_on_and_waits_again_begins_to_wait_anew() -> None:
    stalled = Stalled(most=2048 * KIB)
    first, *others = (Transfer(waiting=600 * KIB) for _ in range(3))
    for transfer in (first, *others):
        stalled.note(transfer, waits=True)
    stalled.note(first, waits=False)
    stalled.note(first, waits=True)
    stalled.note(first, waits=True)  # twice is once
    newest = [Transfer(waiting=600 * KIB) for _ in range(2)]
    for transfer in newest:
        stalled.note(transfer, waits=True)
    assert [one.ended for one in (first, *others, *newest)] == [False, True, True, False, False]


def test_many_that_hold_little_stay() -> None:
    stalled = Stalled()
    transfers = [Transfer(waiting=MOST_BYTES // 1024) for _ in range(1024)]
    for transfer in transfers:
        stalled.note(transfer, waits=True)
    assert not any(transfer.ended for transfer in transfers)
    newest = [Transfer(waiting=600 * KIB) for _ in range(20)]
    for transfer in newest:
        stalled.note(transfer, waits=True)
    assert [transfer.ended for transfer in transfers[:100]] == [True] * 100
    assert not transfers[-1].ended
    assert not any(transfer.ended for transfer in newest)
    assert sum(one.waiting for one in (*transfers, *newest) if not one.ended) <= MOST_BYTES


def test_what_has_ended_gives_way_to_nobody() -> None:
    stalled = Stalled(most=1024 * KIB)
    gone, here = Transfer(waiting=800 * KIB), Transfer(waiting=800 * KIB)
    stalled.note(gone, waits=True)
    stalled.note(gone, waits=False)
    stalled.note(here, waits=True)
    assert (gone.ended, here.ended) == (False, False)
