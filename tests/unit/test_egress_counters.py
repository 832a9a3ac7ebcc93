"""What is counted of each route, and how much of its latency is told."""

from __future__ import annotations

import pytest

from bot_bottle.egress.counters import Counters, Tally


def test_percentiles_are_the_upper_ends_of_their_buckets_and_never_above_the_longest() -> None:
    tally = Tally()
    assert tally.percentile(0.5) == 0.0
    for milliseconds in [1] * 90 + [30] * 9 + [900]:
        tally.answered(milliseconds / 1000)
    wire = tally.to_wire()
    assert wire["latency_p50_ms"] == pytest.approx(1.024)
    assert wire["latency_p95_ms"] == pytest.approx(32.768)
    assert wire["latency_max_ms"] == 900
    assert tally.percentile(1.0) == 0.9


def test_an_answer_that_took_for_ever_is_counted_too() -> None:
    tally = Tally()
    for seconds in (0.0, 86_400.0):
        tally.answered(seconds)
    assert sum(tally.latencies) == tally.answers == 2
    assert tally.percentile(1.0) <= 86_400


def test_counts_outlive_a_change_of_routes_and_those_of_a_route_that_is_gone_do_not() -> None:
    counters = Counters(["a.test", "b.test"])
    counters.of("a.test").requests += 1
    counters.of("nowhere.test").denied += 1
    counters.keep(["a.test"])
    assert counters.of("a.test").requests == 1
    assert counters.of("b.test") is counters.elsewhere
    counters.keep(["a.test", "b.test"])
    assert counters.of("b.test").requests == 0
    assert counters.elsewhere.denied == 1
