"""Bring the rest of a dead launch's audit log home, from the volume its sidecar wrote it to.

Nothing is run for it (see :mod:`~bot_bottle.backend.docker.archives`). The volume is removed only once the
host's log has all of it and the chain is proven.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from bot_bottle.audit import MAX_LOG_BYTES
from bot_bottle.audit_copy import complete
from bot_bottle.backend.docker.archives import read_volume
from bot_bottle.backend.docker.engine import engine_errors
from bot_bottle.backend.docker.labels import ROLE, label_filter
from bot_bottle.backend.docker.removal import end_container, remove_container, remove_volume
from bot_bottle.backend.docker.sidecar_options import LOG_INSIDE, SidecarNames
from bot_bottle.errors import LaunchError
from bot_bottle.files import make_private_dir
from bot_bottle.hostile_tar import BoundedMember

if TYPE_CHECKING:
    from docker import APIClient

_SLACK_BYTES = 1 << 20


def salvage(api: APIClient, identity: str, audit_path: Path) -> bool:
    """Complete ``audit_path`` from what dead launches of ``identity`` left and remove that; False if nothing.

    The caller holds the identity's lock. Raises ``LaunchError`` where the log cannot be completed; its
    volume stays then.
    """
    name = SidecarNames(identity=identity).audit
    with engine_errors(f"the audit log of {identity} could not be brought home from the engine"):
        end_sidecars(api, identity)
        volumes = api.volumes(filters=label_filter(identity=identity))["Volumes"] or []
        for volume in volumes:
            # An engine that is started anew removes what ended, but not its unnamed volumes.
            if volume["Labels"].get(ROLE) == "sidecar":
                remove_volume(api, volume["Name"])
        if all(volume["Name"] != name for volume in volumes):
            return False
        make_private_dir(audit_path.parent)
        with tempfile.NamedTemporaryFile(dir=audit_path.parent, prefix=".salvage-") as file:
            source = Path(file.name)
            try:
                _fetch(api, identity, name, source)
                complete(audit_path, source)
            except (OSError, ValueError) as error:
                detail = error.strerror or error if isinstance(error, OSError) else error
                raise LaunchError(
                    f"the audit log of {identity} could not be completed from the volume {name}, "
                    f"which is kept: {detail}"
                ) from error
        remove_volume(api, name)
    return True


def end_sidecars(api: APIClient, identity: str) -> None:
    """End and remove the sidecars and doorkeepers of ``identity``, ours only. Raises the SDK's errors."""
    ends = {"doorkeeper": remove_container, "sidecar": end_container}
    for container in api.containers(all=True, filters=label_filter(identity=identity)):
        end = ends.get(container["Labels"].get(ROLE))
        if end is not None:
            end(api, container["Id"])


def _fetch(api: APIClient, identity: str, volume: str, target: Path) -> None:
    """Write the volume's log to ``target``; nothing where the sidecar never began one."""
    with read_volume(api, identity, volume, LOG_INSIDE) as stream:
        if stream is None:
            return
        source = cast("BinaryIO", stream)
        with (
            tarfile.open(fileobj=source, mode="r|", tarinfo=BoundedMember) as archive,
            target.open("wb") as sink,
        ):
            _unpack_log(archive, sink)


def _unpack_log(archive: tarfile.TarFile, sink: BinaryIO) -> None:
    member = archive.next()
    if member is None or not member.isreg() or member.name != LOG_INSIDE.name:
        raise ValueError("its volume holds something else than the sidecar's log")
    if member.size > MAX_LOG_BYTES + _SLACK_BYTES:
        raise ValueError("its volume holds more than a sidecar writes")
    content = archive.extractfile(member)
    if content is not None:
        shutil.copyfileobj(content, sink)
