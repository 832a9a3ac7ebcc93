"""The launcher's side of a doorkeeper: started in the agent's network, heard until it has left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bot_bottle.backend.docker.streams import STDERR, STDOUT, Multiplexed
from bot_bottle.legible import legible
from bot_bottle.sidecar.doorkeeper import DONE

if TYPE_CHECKING:
    from docker import APIClient

_WORDS_BYTES = 2000
#: It waits for the sidecar to listen, and that for its container to start, in seconds.
_SECONDS = 60.0


def keep_doors(api: APIClient, options: dict[str, Any]) -> str:
    """Run a doorkeeper (``options`` are ``create_container``'s) and wait until it has handed over.

    Gives what it said of a failure, empty where it had none. The engine removes it. Raises the SDK's errors.
    """
    container = api.create_container(**options)["Id"]
    wanted = dict.fromkeys(("stdout", "stderr", "stream"), 1)
    with Multiplexed(api.attach_socket(container, wanted)) as streams:
        api.start(container)
        return _words(streams)


def _words(streams: Multiplexed) -> str:
    said = {STDOUT: b"", STDERR: b""}
    deadline = time.monotonic() + _SECONDS
    try:
        while said[STDOUT] != DONE and (pieces := streams.read(deadline - time.monotonic())):
            for stream, data in pieces:
                said[stream] = (said[stream] + data)[-_WORDS_BYTES:]
    except (OSError, ValueError) as error:
        return f"the doorkeeper cannot be heard ({type(error).__name__})"
    if said[STDOUT] == DONE:
        return ""
    last = said[STDERR].decode("utf-8", "replace").strip().splitlines()[-1:]
    return legible(last[0]) if last else "the doorkeeper ended without a word"
