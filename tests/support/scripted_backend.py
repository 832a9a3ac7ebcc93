"""A backend that isolates nothing and runs nothing: it lets the command line be tested by itself."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from bot_bottle.backend.base import BottleBackend, ExecResult, Leftover, ProbeResult
from bot_bottle.backend.plan import LimitStatus
from bot_bottle.backend.util import write_trust
from bot_bottle.demo.authority import Authority
from bot_bottle.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot_bottle.backend.plan import BottlePlan
    from bot_bottle.manifest.model import ManifestBottle


class ScriptedBackend(BottleBackend):
    """Behaves as its class variables say; what was asked of it is in ``launched`` and ``removed``."""

    name = "scripted"
    boundary = "nothing at all"

    probe_result: ClassVar[ProbeResult]
    outcome: ClassVar[int | BaseException]
    refusal: ClassVar[str]
    dead: ClassVar[list[Leftover]]
    launched: ClassVar[list[BottlePlan]]
    removed: ClassVar[list[Leftover]]

    @classmethod
    def reset(cls) -> None:
        cls.probe_result = ProbeResult(backend=cls.name, level="ok", detail="works")
        cls.outcome = 0
        cls.refusal = ""
        cls.dead, cls.launched, cls.removed = [], [], []

    def probe(self) -> ProbeResult:
        return self.probe_result

    def limits(self, bottle: ManifestBottle) -> tuple[LimitStatus, ...]:
        del bottle
        return (
            LimitStatus(name="memory", value="4 GiB", holds=True, how="cgroup v2"),
            LimitStatus(name="cpu", value="2", holds=False, how="no cgroup"),
        )

    def check(self, plan: BottlePlan) -> None:
        if self.refusal:
            raise UnavailableError(self.refusal)

    def bottle_of(self, identity: str) -> ScriptedBottle:  # type: ignore[override]
        return ScriptedBottle(self.outcome)

    @contextmanager
    def launch(self, plan: BottlePlan) -> Iterator[ScriptedBottle]:  # type: ignore[override]
        self.launched.append(plan)
        write_trust(plan.state_dir, Authority("Scripted backend").pem)
        yield ScriptedBottle(self.outcome)

    def leftovers(self) -> tuple[Leftover, ...]:
        return tuple(self.dead)

    def remove(self, leftover: Leftover) -> None:
        self.removed.append(leftover)


class ScriptedBottle:
    """Its agent ends at once, as told."""

    provisioned = False

    def __init__(self, outcome: int | BaseException) -> None:
        self.outcome = outcome

    def exec_stream(self, script: str, *, stdin: BinaryIO | None, stdout: BinaryIO | None) -> ExecResult:
        """Take in everything and unpack nothing."""
        del script, stdout
        while stdin is not None and stdin.read(1 << 16):
            pass
        return ExecResult(returncode=0, stdout=b"", stderr=b"")

    def await_ready(self) -> None:
        """Be ready at once."""

    def exec_agent(self, argv: Sequence[str], *, tty: bool = True, side: object = None) -> int:
        del argv, tty, side
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome
