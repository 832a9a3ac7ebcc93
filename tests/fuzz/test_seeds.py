"""The fuzzers' seeds and findings, as they are and spoiled a little, through every target."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
SEEDS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
_PIECES = (b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", *(bytes((byte,)) for byte in b" :;%0./\xff"))


def test_every_target_has_seeds() -> None:
    assert {path.parent.name for path in SEEDS} == {*TARGETS}


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_seed(seed: Path) -> None:
    data, target = seed.read_bytes(), TARGETS[seed.parent.name]
    target(data)
    random = Random(seed.name)
    for _ in range(150):
        spoiled = data
        for _ in range(random.randint(1, 3)):
            start = random.randint(0, len(spoiled))
            spoiled = spoiled[:start] + random.choice(_PIECES) + spoiled[start + random.randint(0, 2) :]
        target(spoiled)
