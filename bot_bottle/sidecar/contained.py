"""``python -m bot_bottle.sidecar.contained``: the sidecar in a container, on its standard streams."""

from __future__ import annotations

import os
import signal
import sys

from bot_bottle.egress.memory import share_one_pool
from bot_bottle.sidecar.handover import wait_for_one
from bot_bottle.sidecar.harden import conceal, ignore_keys, suspend_collector


def main() -> int:
    """Harden the process, open the hand-over, then serve; the order matters: the config holds credentials."""
    if os.isatty(0):
        sys.stderr.write(
            "the sidecar is started by bot-bottle itself; see bot-bottle proxy for one by hand\n"
        )
        return 2
    conceal()
    ignore_keys()
    share_one_pool()
    suspend_collector()
    # The first process of a PID namespace is spared the signals it does not handle (pid_namespaces(7)).
    signal.signal(signal.SIGALRM, lambda *_: os._exit(4))
    # Nothing but messages may reach the stream they go out on.
    stdin, stdout = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    listening = wait_for_one()
    # Nothing heavy before the process is hardened, nor before the doorkeeper can come.
    from bot_bottle.sidecar.service import run  # noqa: PLC0415
    from bot_bottle.sidecar.stdio import StdioChannel  # noqa: PLC0415

    return run(StdioChannel(stdin, stdout, listening))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # as for a sidecar on the host: nothing is gained by taking the interpreter apart
