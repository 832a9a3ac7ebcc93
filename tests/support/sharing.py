"""How runs at the same time share one set of tests: each group is run by whoever takes it first.

A group is what one file has for one backend and account, so that what such tests share is made once. Where
``BOT_BOTTLE_TEST_SHARED`` names an empty folder, every run that was given the same folder takes groups by it,
in the order in which they stand. A run of the part ``containers`` (tests.support.container_tests) keeps its
own to itself, and then takes others from the end: no processor waits while another run has work left.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.support.container_tests import CONTAINERS, PART, SHARED, is_in_containers, parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pytest


def is_shared() -> bool:
    """Tell whether this run shares its tests with others."""
    return bool(os.environ.get(SHARED))


def taken(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """Give the tests that are this run's; the next group is taken when its first test is asked for."""
    folder = Path(os.environ[SHARED])
    own: list[pytest.Item] = []
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        if is_in_containers(item):
            own.append(item)
        else:
            groups.setdefault(_group(item), []).append(item)
    yield from own
    helps = os.environ.get(PART) == CONTAINERS
    for name in reversed(groups) if helps else groups:
        if _take(folder / quote(name, safe="")):
            yield from groups[name]


def _group(item: pytest.Item) -> str:
    """Name a test's group; what is drawn anew in each run may be in a test's own name, but not here."""
    file = item.nodeid.partition("::")[0]
    return " ".join((file, parameter(item, "backend"), parameter(item, "account"))).rstrip()


def _take(place: Path) -> bool:
    """Take a group, unless it is taken; of several at the same time one alone gets it (open(2), O_EXCL)."""
    try:
        place.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
