"""What a microVM cannot do is refused with a sentence that says what to do, and is in docs/security.md."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from bot_bottle.backend.smolmachines import images, machine, probe
from bot_bottle.backend.smolmachines.backend import SmolmachinesBackend
from bot_bottle.backend.smolmachines.bottle import SmolmachinesBottle
from bot_bottle.backend.smolmachines.guest import Starter
from bot_bottle.errors import UnavailableError, UsageError
from bot_bottle.manifest.model import ManifestAgentProvider, ManifestBottle
from bot_bottle.operator_config import OperatorConfig

if TYPE_CHECKING:
    from collections.abc import Callable

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


def bottle(image: str = "") -> ManifestBottle:
    provider = ManifestAgentProvider(template="command", image=image)
    return ManifestBottle(name="b", path=Path("b.md"), agent_provider=provider)


def build_without_an_engine() -> None:
    source = images.image_source(bottle(), OperatorConfig())
    assert source.kind == "dockerfile"
    images.ready(source, bottle())


def start_a_pack() -> None:
    images.image_source(bottle("/some/machine.smolmachine"), OperatorConfig())


def resume_what_is_gone() -> None:
    plan: Any = SimpleNamespace(spec=SimpleNamespace(identity="gone-abcde"), identity="gone-abcde")
    SmolmachinesBackend().check(plan)


def approve_a_dockerfile() -> None:
    SmolmachinesBackend().dockerfile_of(bottle(), Path("state"))


def run_as_another_user() -> None:
    running = SmolmachinesBottle(
        "x-aaaaa",
        cast("machine.Machine", SimpleNamespace(name="x")),
        cast("Any", None),
        Starter(user="0:0", piped=(), terminal=()),
    )
    running.exec("true", user="root")


#: Of each sentence how it begins and how it ends.
NO_ENGINE = (
    r"^a machine starts from an image, and the Dockerfile of command cannot be built: .* "
    r"Name a folder, an archive or an image in agent_provider\.image instead$"
)
GONE = (
    r"^the machine of gone-abcde is gone from the engine, .* remove what is left with: "
    r"bot-bottle cleanup gone-abcde$"
)


@pytest.mark.parametrize(
    ("attempt", "kind", "sentence", "listed"),
    [
        (
            build_without_an_engine,
            UnavailableError,
            NO_ENGINE,
            "a Dockerfile where no engine is at hand to build it",
        ),
        (start_a_pack, UsageError, r"is a pack, .* name an image$", "a pack (`.smolmachine`"),
        (
            resume_what_is_gone,
            UnavailableError,
            GONE,
            "`resume` where the machine is gone from the engine",
        ),
        (
            approve_a_dockerfile,
            UnavailableError,
            r"keeps the image that it was made from .* end the session and resume it$",
            "an agent's Dockerfile for a machine that exists",
        ),
        (
            run_as_another_user,
            UsageError,
            r"^a smolmachines bottle has one user, agent; 'root' cannot",
            "commands as another user than the agent",
        ),
    ],
)
def test_what_a_machine_cannot_do_is_told_and_listed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    attempt: Callable[[], None],
    kind: type[Exception],
    sentence: str,
    listed: str,
) -> None:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    monkeypatch.setattr(probe, "obstacle", lambda: None)
    monkeypatch.setattr(machine, "ours", lambda _identity="": ())
    with pytest.raises(kind, match=f"(?s){sentence}"):
        attempt()
    assert listed in " ".join(SECURITY.read_text("utf-8").split())
