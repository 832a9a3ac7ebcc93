"""What Podman takes otherwise than Docker, behind the same socket and the same words.

Found by trying 4.3: a system-call filter is named by a path on Podman's own machine, where Docker takes the
filter itself; a tmpfs is given no owner, and what the image has in its place unless told otherwise.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.backend.docker import seccomp
from bot_bottle.errors import UnavailableError
from bot_bottle.files import make_private_dir, write_atomic

if TYPE_CHECKING:
    from bot_bottle.backend.docker.engine import Engine
    from bot_bottle.backend.docker.facts import EngineFacts

PODMAN = "Podman"


def seccomp_option(engine: Engine) -> str:
    """Give the bottle's filter as this engine's ``seccomp=`` option takes it.

    Raises ``UnavailableError`` for a Podman on another machine, which could not be given one.
    """
    text = seccomp.profile()
    if engine.facts.product != PODMAN:
        return text
    require_filter(engine)
    data = text.encode()
    path = paths.cache_dir() / f"seccomp-{hashlib.sha256(data).hexdigest()[:16]}.json"
    make_private_dir(path.parent)
    # Written each time: what lies there from before is not trusted to be what its name says.
    write_atomic(path, data)
    return str(path)


def require_filter(engine: Engine) -> None:
    """Refuse an engine that cannot be given the bottle's system-call filter though it has one."""
    if engine.facts.product == PODMAN and not engine.endpoint.socket_path:
        raise UnavailableError(
            f"the Podman at {engine.endpoint.url} is on another machine and cannot be given the bottle's "
            "system-call filter; use a Podman of this machine, or Docker there"
        )


def tmpfs(options: str, size: int, facts: EngineFacts, *, owner: int | None) -> str:
    """Give a tmpfs's options, its ``size`` in bytes; ``owner`` alone can write to it, or everybody if None.

    Everybody can where an engine gives it no other owner than root. It begins empty: Podman alone would copy
    into it what the image has in that place.
    """
    podman = facts.product == PODMAN
    if owner is None or (owner and podman):
        mode = "mode=1777"
    else:
        mode = f"mode=755,uid={owner},gid={owner}" if owner else "mode=755"
    return f"{options},{mode},size={size}" + (",notmpcopyup" if podman else "")


def root_script(facts: EngineFacts) -> str:
    """Give what root is to do inside besides, before the agent first runs; as a rule nothing.

    A tmpfs has the mode of the folder that it covers (runc), and its owner here is root.
    """
    return "\nchmod 1777 /run\n" if facts.product == PODMAN else ""
