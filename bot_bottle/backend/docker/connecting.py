"""An engine that is asked what it can while its bottles' manifests are still being read."""

from __future__ import annotations

import threading

from bot_bottle.backend.docker import engine as engines


class Connecting:
    """A call of :func:`~bot_bottle.backend.docker.engine.connect`, begun at once in a thread of its own."""

    def __init__(self) -> None:
        self._engine: engines.Engine | None = None
        self._error: BaseException | None = None
        self._given_up = False
        self._lock = threading.Lock()
        # A daemon: an engine that does not answer holds nobody up who has found a mistake meanwhile.
        self._thread = threading.Thread(target=self._connect, name="bot-bottle-engine", daemon=True)
        self._thread.start()

    def engine(self) -> engines.Engine:
        """Wait for the engine, which is the caller's from then on; raises what ``connect`` raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._engine is not None  # noqa: S101 - the thread has one of two ends
        return self._engine

    def give_up(self) -> None:
        """Let go of an engine that nobody will ask for, now or when it answers."""
        with self._lock:
            self._given_up = True
            engine = self._engine
        if engine is not None:
            engine.close()

    def _connect(self) -> None:
        try:
            engine = engines.connect()
        except BaseException as error:  # noqa: BLE001 - raised anew to whoever asks
            self._error = error
            return
        with self._lock:
            self._engine = engine
            given_up = self._given_up
        if given_up:
            engine.close()
