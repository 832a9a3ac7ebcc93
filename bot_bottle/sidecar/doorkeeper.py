"""``python -m bot_bottle.sidecar.doorkeeper``: open the sidecar's doors in the bottle, hand them over, leave.

It runs in a short-lived container of the sidecar's image that shares the bottle's network namespace and the
sidecar's private volume, before the agent is let in.
"""

from __future__ import annotations

import sys

from bot_bottle.sidecar.handover import come
from bot_bottle.sidecar.listeners import close_listeners, open_listeners, send_listeners

#: What it says on standard output when it has done all.
DONE = b"handed over\n"


def main() -> int:
    """Open, hand over, leave; a failure is one line on standard error."""
    try:
        listeners = open_listeners()
        with come() as sidecar:
            send_listeners(sidecar, listeners)
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        return 4
    close_listeners(listeners)
    sys.stdout.buffer.write(DONE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
