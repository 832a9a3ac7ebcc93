"""Another machine for a kept bottle whose image is another one now: home and workspace go on in it.

A machine keeps the image that it was made from. So its home is written to an archive in the bottle's state
folder, the machine is removed, one is made from the new image, and the archive is unpacked in it. From the
moment the archive is whole until it is unpacked, it is what the bottle's work is in: a launcher that ends
on the way, or an image that does not come up, leaves it for the next ``resume``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from bot_bottle import bottle_state
from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.backend.smolmachines import disk, guest, images, machine
from bot_bottle.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.backend.plan import BottlePlan
    from bot_bottle.backend.smolmachines.guest import Starter
    from bot_bottle.operator_config import OperatorConfig

_ARCHIVE, _UNFINISHED = "home.tar", ".home.tar.partial"
_PACK = ("/bin/sh", "-c", f"exec tar -cf - -C {AGENT_HOME} .")
#: As the agent: what it may not make, an archive that it wrote to cannot make either.
_UNPACK = ("/bin/sh", "-c", f"exec tar -xpf - -C {AGENT_HOME}")


def waits(identity: str) -> bool:
    """Tell whether a bottle's home is in its archive."""
    return _archive(identity).exists()


def require_whole(identity: str) -> None:
    """Raise ``UnavailableError`` where a bottle's home is on its way from one machine to another."""
    if waits(identity):
        raise UnavailableError(
            f"the home of {identity} is on its way to a machine of another image; go on with: "
            f"bot-bottle resume {identity}"
        )


def other_image(plan: BottlePlan, config: OperatorConfig) -> tuple[Path, str] | None:
    """Give image and origin for a new machine of a kept bottle; None where it has the right one.

    An image that cannot be had now is no reason to leave work where it is: its own machine has all it needs.
    Raises ``UsageError`` and ``UnavailableError`` where there is no such machine any more.
    """
    try:
        source = images.image_source(plan.bottle, config)
        path = images.ready(source, plan.bottle)
        origin = images.origin(source, path)
    except (UsageError, UnavailableError, OSError) as error:
        if waits(plan.identity):
            raise
        words = f"{error}; the machine of {plan.identity} goes on with the image that it has"
        print(f"bot-bottle: {words}", file=sys.stderr)
        return None
    name = machine.machine_name(plan.identity)
    records = [one for one in machine.ours(plan.identity) if one.name == name]
    if not waits(plan.identity) and (not records or records[0].origin in {"", origin}):
        return None
    print(
        f"bot-bottle: {source.where} is another image now: {plan.identity} gets a machine made from it, with "
        "the home and workspace of the one before",
        file=sys.stderr,
    )
    return path, origin


def take_home(identity: str) -> None:
    """Have a stopped machine's home in the archive, and no machine any more; raises ``LaunchError``."""
    archive = _archive(identity)
    if not archive.exists():
        unfinished = archive.with_name(_UNFINISHED)
        failed = f"the home of {identity} could not be read from its machine"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file, open(os.devnull, "rb") as nothing:  # noqa: PTH123
            with disk.awake(identity):
                source, sink = nothing.fileno(), file.fileno()
                disk.stream(identity, _PACK, user=guest.ROOT, source=source, sink=sink, failed=failed)
            os.fsync(file.fileno())
        unfinished.replace(archive)
    for record in machine.ours(identity):
        machine.delete(record.name)


def give_home(identity: str, starter: Starter) -> None:
    """Unpack the archive in the new machine, which then holds the work; raises ``LaunchError``."""
    archive = _archive(identity)
    words = (*starter.piped, *_UNPACK)
    failed = f"the home of {identity} could not be brought into its new machine, and waits in {archive}"
    with archive.open("rb") as file, open(os.devnull, "wb") as nothing:  # noqa: PTH123
        source, sink = file.fileno(), nothing.fileno()
        disk.stream(identity, words, user=starter.user, source=source, sink=sink, failed=failed)
    archive.unlink()


def _archive(identity: str) -> Path:
    return bottle_state.bottle_state_dir(identity) / _ARCHIVE
