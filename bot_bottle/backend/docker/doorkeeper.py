"""The launcher's side of a doorkeeper: started in the agent's network, heard until it has left."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from bot_bottle.backend.docker.streams import STDERR, STDOUT, Multiplexed
from bot_bottle.bottle_state import printable
from bot_bottle.sidecar.doorkeeper import DONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker import APIClient

_WORDS_BYTES = 2000


class Doorkeeper:
    """One doorkeeper, begun when made (``options`` are ``create_container``'s); the engine removes it.

    ``changed`` is called, from another thread, when it has ended; :attr:`words` is then what it said of a
    failure, and empty where it had none; :attr:`id` is its container. Raises the SDK's errors.
    """

    def __init__(self, api: APIClient, options: dict[str, Any], changed: Callable[[], None]) -> None:
        self.words = ""
        self.id: str = api.create_container(**options)["Id"]
        streams = Multiplexed(api.attach_socket(self.id, dict.fromkeys(("stdout", "stderr", "stream"), 1)))
        try:
            api.start(self.id)
        except BaseException:
            streams.close()
            raise
        threading.Thread(
            target=self._hear, args=(streams, changed), name="bot-bottle-doorkeeper", daemon=True
        ).start()

    def _hear(self, streams: Multiplexed, changed: Callable[[], None]) -> None:
        said = {STDOUT: b"", STDERR: b""}
        with streams, contextlib.suppress(OSError, ValueError):
            for stream, data in streams:
                said[stream] = (said[stream] + data)[-_WORDS_BYTES:]
        if said[STDOUT] != DONE:
            last = said[STDERR].decode("utf-8", "replace").strip().splitlines()[-1:]
            self.words = printable(last[0]) if last else "the doorkeeper ended without a word"
        changed()
