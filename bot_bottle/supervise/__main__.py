"""``python -m bot_bottle.supervise CONTROL_FD``, started by a sidecar only."""

from __future__ import annotations

import os
import signal
import socket
import sys


def main(argv: list[str]) -> int:
    """Load, confine the process, say so, then serve; gives the exit code."""
    if len(argv) != 1 or not argv[0].isdigit():
        sys.stderr.write("this process is started by a sidecar itself; see supervise in docs/manifest.md\n")
        return 2
    control = socket.socket(fileno=int(argv[0]))
    control.set_inheritable(False)
    import asyncio  # noqa: PLC0415

    from bot_bottle.sidecar.control import send_message  # noqa: PLC0415
    from bot_bottle.supervise.confine import confine  # noqa: PLC0415
    from bot_bottle.supervise.mcp_server import serve  # noqa: PLC0415 - heavy

    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def ready() -> None:
        confine()
        send_message(control, {"event": "ready"})

    asyncio.run(serve(control, ready))
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    os._exit(code)
