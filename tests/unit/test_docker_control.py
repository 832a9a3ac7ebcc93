"""The launcher's end of a container's control socket."""

from __future__ import annotations

import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bot_bottle.backend.docker.control import ControlThread


def test_it_is_closed_by_whoever_comes_first_and_second_and_at_once() -> None:
    """The launcher closes it, and the thread that hears the sidecar does: where an engine dies, both."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        log = Path(folder, "log")
        log.touch()
        for number in range(100):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(Path(folder, str(number))))
                listener.listen()
                control = ControlThread(listener, log, lambda _order: {})
                together = threading.Barrier(2)

                def close(control: ControlThread = control, together: threading.Barrier = together) -> None:
                    together.wait()
                    control.close()

                for done in [pool.submit(close), pool.submit(close)]:
                    done.result()
                control.close()
                control.grew()
