"""When a kept bottle's machine is replaced by one of another image, and what is said of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle import bottle_state
from bot_bottle.backend.smolmachines import images, machine, replacing
from bot_bottle.backend.smolmachines.machine import MachineRecord
from bot_bottle.bottle_state import BottleMetadata
from bot_bottle.errors import UnavailableError, UsageError
from bot_bottle.manifest.model import ManifestAgentProvider
from bot_bottle.operator_config import OperatorConfig

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = "kept-abcde"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the archive that a bottle names, beside that bottle's state."""
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    bottle_state.create_state(BottleMetadata(identity=IDENTITY))
    place = tmp_path / "image.tar"
    place.write_bytes(b"an image")
    return place


def plan(image: Path) -> Any:
    provider = ManifestAgentProvider(template="command", image=str(image))
    return SimpleNamespace(identity=IDENTITY, bottle=SimpleNamespace(agent_provider=provider))


def made_from(monkeypatch: pytest.MonkeyPatch, *origins: str) -> None:
    """Let the engine list a machine of the bottle for each of ``origins``."""
    records = tuple(
        MachineRecord(
            name=machine.machine_name(IDENTITY),
            identity=IDENTITY,
            role="agent",
            state="stopped",
            memory_mib=512,
            processors=1,
            origin=origin,
        )
        for origin in origins
    )
    monkeypatch.setattr(machine, "ours", lambda _identity: records)


def origin_of(image: Path) -> str:
    return images.origin(images.ImageSource(kind="archive", value=str(image), where=""), image)


def home(identity: str = IDENTITY) -> Path:
    return bottle_state.bottle_state_dir(identity) / "home.tar"


def test_a_machine_of_the_same_image_goes_on(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_from(monkeypatch, origin_of(archive))
    assert replacing.other_image(plan(archive), OperatorConfig()) is None


def test_a_machine_that_does_not_tell_its_image_goes_on(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_from(monkeypatch, "")
    assert replacing.other_image(plan(archive), OperatorConfig()) is None


def test_one_of_another_image_is_replaced_and_that_is_said(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_from(monkeypatch, origin_of(archive))
    archive.write_bytes(b"another image")
    assert replacing.other_image(plan(archive), OperatorConfig()) == (archive, origin_of(archive))
    said = capsys.readouterr().err
    assert "agent_provider.image is another image now: kept-abcde gets a machine made from it" in said


def test_where_the_image_is_gone_the_machine_that_there_is_goes_on(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_from(monkeypatch, origin_of(archive))
    archive.unlink()
    assert replacing.other_image(plan(archive), OperatorConfig()) is None
    assert "No such file" in (said := capsys.readouterr().err)
    assert "the machine of kept-abcde goes on with the image that it has" in said


def test_a_home_on_its_way_goes_on_to_whatever_image_there_is_now(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home().write_bytes(b"")
    for origins in ((), (origin_of(archive),)):  # cut before the new machine was made, and after
        made_from(monkeypatch, *origins)
        assert replacing.other_image(plan(archive), OperatorConfig()) == (archive, origin_of(archive))
    archive.unlink()
    with pytest.raises(UsageError, match="No such file"):
        replacing.other_image(plan(archive), OperatorConfig())


def test_a_home_on_its_way_is_read_by_nobody_else(archive: Path) -> None:
    del archive
    replacing.require_whole(IDENTITY)
    home().write_bytes(b"")
    with pytest.raises(UnavailableError, match="go on with: bot-bottle resume kept-abcde"):
        replacing.require_whole(IDENTITY)


def test_a_home_that_is_whole_is_not_read_again(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of machines then is a new one that never came so far, or an old one: both go."""
    del archive
    home().write_bytes(b"the work")
    made_from(monkeypatch, "one", "two")
    removed: list[str] = []
    monkeypatch.setattr(machine, "delete", removed.append)
    replacing.take_home(IDENTITY)
    assert removed == [machine.machine_name(IDENTITY)] * 2
    assert home().read_bytes() == b"the work"
