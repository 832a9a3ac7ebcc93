"""One target under atheris; the arguments behind its name are libFuzzer's."""

from __future__ import annotations

import sys

import atheris

_READERS = ["egress", "git_gate", "manifest", "pipelock.unpack", "retrieval", "supervise.request"]

with atheris.instrument_imports(include=[f"bot_bottle.{name}" for name in _READERS]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
