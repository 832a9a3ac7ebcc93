"""What the filter refuses, decided over the rules as data; and that an engine's profile says the same."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.backend.docker import seccomp
from bot_bottle.backend.syscalls import NUMBERS, REFUSED, RULES, Condition

if TYPE_CHECKING:
    from collections.abc import Callable

_U64 = (1 << 64) - 1


def holds(condition: Condition, args: tuple[int, ...]) -> bool:
    given = args[condition.index] & _U64
    return {
        "eq": given == condition.value,
        "ne": given != condition.value,
        "ge": given >= condition.value,
        "masked": given & condition.mask == condition.value,
    }[condition.test]


def refusal(name: str, *args: int) -> int:
    """Give the errno a call fails with, 0 where it goes through; as the kernel, the first rule counts."""
    padded = (*args, *(0,) * (6 - len(args)))
    for rule in RULES:
        if name in rule.names and all(holds(condition, padded) for condition in rule.conditions):
            return rule.errno
    return 0


def as_engine(profile: dict[str, Any], name: str, *args: int) -> int:
    """Read the rendered profile as runc does on an ordinary machine."""
    tests: dict[str, Callable[[int, int, int], bool]] = {
        "SCMP_CMP_EQ": lambda given, one, _two: given == one,
        "SCMP_CMP_NE": lambda given, one, _two: given != one,
        "SCMP_CMP_GE": lambda given, one, _two: given >= one,
        "SCMP_CMP_MASKED_EQ": lambda given, one, two: given & one == two,
    }
    padded = (*args, *(0,) * (6 - len(args)))
    for rule in profile["syscalls"]:
        if "includes" in rule or name not in rule["names"]:
            continue
        if all(
            tests[arg["op"]](padded[arg["index"]] & _U64, arg["value"], arg["valueTwo"])
            for arg in rule["args"]
        ):
            assert rule["action"] == "SCMP_ACT_ERRNO"
            return int(rule["errnoRet"])
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    return 0


CALLS = [
    *((name, (), errno.EPERM) for name in REFUSED),
    ("clone3", (), errno.ENOSYS),
    ("clone", (0x11,), 0),
    ("clone", (0x3D0F00,), 0),  # a thread
    *(("clone", (0x11 | 1 << bit,), errno.EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)),
    *(("socket", (family, 1, 0), 0) for family in (1, 2, 10)),
    ("socket", (16, 3, 0), 0),
    ("socket", (16, 3, 9), errno.EPERM),
    *(("socket", (family, 3, 0), errno.EPERM) for family in (0, 3, 17, 38, 40, 44, 63, 64, 1 << 32 | 2)),
    *(("socketpair", (family, 1, 0), errno.EPERM) for family in (17, 40)),
    ("socketpair", (1, 1, 0), 0),
    ("ioctl", (0, 0x5401), 0),
    *(("ioctl", (0, high | 0x5412), errno.EPERM) for high in (0, 1 << 32, 7 << 40)),
    ("ioctl", (0, 0x541C), errno.EPERM),
    *(("personality", (value,), 0) for value in (0, 0x20000, 0xFFFFFFFF)),
    *(("personality", (value,), errno.EPERM) for value in (8, 0x40000, 0x400000, 0x80000000, 0xFFFFFFFE)),
    *((name, (), 0) for name in ("openat", "execve", "landlock_restrict_self", "memfd_create")),
]


@pytest.mark.parametrize(("name", "args", "wanted"), CALLS)
def test_a_call_is_refused_or_not_and_an_engine_reads_it_alike(
    name: str, args: tuple[int, ...], wanted: int
) -> None:
    assert refusal(name, *args) == wanted
    assert as_engine(json.loads(seccomp.profile()), name, *args) == wanted


def test_every_number_belongs_to_a_refused_call() -> None:
    named = {name for rule in RULES for name in rule.names}
    assert set(NUMBERS) <= named


def test_where_clone_takes_its_flags_second_the_second_is_looked_at() -> None:
    rules = [rule for rule in json.loads(seccomp.profile())["syscalls"] if rule["names"] == ["clone"]]
    there = [rule for rule in rules if rule.get("includes") == {"arches": ["s390", "s390x"]}]
    elsewhere = [rule for rule in rules if rule.get("excludes") == {"arches": ["s390", "s390x"]}]
    assert len(there) == len(elsewhere) == 7
    assert {rule["args"][0]["index"] for rule in there} == {1}
    assert {rule["args"][0]["index"] for rule in elsewhere} == {0}
