"""The clock that grants end by."""

from __future__ import annotations

from bot_bottle.supervise.clock import ForwardClock


class _Machine:
    def __init__(self) -> None:
        self.wall, self.steady = 1000.0, 5.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def clock(self) -> ForwardClock:
        return ForwardClock(wall=lambda: self.wall, steady=lambda: self.steady)


def test_it_goes_as_time_does() -> None:
    machine = _Machine()
    clock = machine.clock()
    machine.passes(60)
    assert clock() == 1060


def test_a_wall_clock_set_back_holds_nothing_up() -> None:
    machine = _Machine()
    clock = machine.clock()
    machine.passes(60)
    machine.wall -= 86400
    assert clock() == 1060
    machine.passes(3600)
    assert clock() == 4660
    machine.wall += 86400
    assert clock() == 4660


def test_a_wall_clock_set_forward_counts_and_setting_it_right_again_does_not() -> None:
    machine = _Machine()
    clock = machine.clock()
    machine.wall += 3600
    assert clock() == 4600
    machine.wall -= 3600
    machine.passes(10)
    assert clock() == 4610


def test_the_machines_own_clocks_serve() -> None:
    clock = ForwardClock()
    first = clock()
    assert clock() >= first
