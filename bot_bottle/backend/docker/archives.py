"""What lies in a volume, as an archive, and nothing is run for it.

The engine itself reads it, through a container that is never started, made of an empty image, so that it
works whatever images are left. The volume is mounted read-only there.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from bot_bottle.backend.docker.labels import make_labels
from bot_bottle.backend.docker.removal import remove_container

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import PurePath

    from docker import APIClient

#: Two empty blocks: a tar archive of nothing (pax(1)).
_EMPTY_ARCHIVE = bytes(1024)


@contextlib.contextmanager
def read_volume(api: APIClient, identity: str, volume: str, path: PurePath) -> Iterator[ArchiveStream | None]:
    """Give the tar archive of ``path`` where ``volume`` is mounted on its parent; None for what is not there.

    Its top is the last part of ``path``. Raises the SDK's errors.
    """
    from docker import errors  # noqa: PLC0415
    from docker.types import LogConfig, Mount  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        labels = make_labels("probe", identity)
        image = _empty_image(api, labels)
        stack.callback(api.remove_image, image, force=True)
        container = api.create_container(
            image,
            command=["-"],
            labels=labels,
            network_disabled=True,
            host_config=api.create_host_config(
                mounts=[Mount(target=str(path.parent), source=volume, type="volume", read_only=True)],
                network_mode="none",
                log_config=LogConfig(type="none"),
            ),
            use_config_proxy=False,
        )
        stack.callback(remove_container, api, container["Id"])
        try:
            stream, _status = api.get_archive(container["Id"], str(path))
        except errors.NotFound:
            yield None
            return
        yield ArchiveStream(stream)


class ArchiveStream:
    """A readable file made of the pieces that an HTTP answer comes in."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = 1 << 16, /) -> bytes:
        """Read ``size`` bytes, fewer only at the end."""
        parts, have = [self._rest], len(self._rest)
        while have < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def _empty_image(api: APIClient, labels: dict[str, str]) -> str:
    said = api.import_image_from_data(
        _EMPTY_ARCHIVE, changes=[f"LABEL {name}={value}" for name, value in labels.items()]
    )
    return str(json.loads(said.strip().splitlines()[-1])["status"])
