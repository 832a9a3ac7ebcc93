"""``python -m bot_bottle.sidecar LAUNCHER_PID CONFIG_FD CONTROL_FD``, started by a launcher only."""

from __future__ import annotations

import os
import sys

from bot_bottle.egress.memory import share_one_pool
from bot_bottle.sidecar.harden import harden, suspend_collector


def main(argv: list[str]) -> int:
    """Harden the process, then serve; the order matters, since the config holds credentials."""
    if len(argv) != 3 or not all(arg.isdigit() for arg in argv):
        sys.stderr.write(
            "the sidecar is started by bot-bottle itself; see bot-bottle proxy for one by hand\n"
        )
        return 2
    launcher_pid, config_fd, control_fd = (int(arg) for arg in argv)
    harden(launcher_pid)
    share_one_pool()
    suspend_collector()
    # Nothing heavy before the process is hardened.
    from bot_bottle.sidecar.channel import SocketChannel  # noqa: PLC0415
    from bot_bottle.sidecar.service import run  # noqa: PLC0415

    return run(SocketChannel(config_fd, control_fd))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # The log is closed and the credentials die with the process; taking the interpreter apart first would
    # only make every launcher wait for it.
    os._exit(code)
