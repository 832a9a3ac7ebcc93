"""``python -m bot_bottle.cli.serve_proxy CONFIG_FD ADDRESS PORT CA_DIR``: ``bot-bottle proxy`` at work."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bot_bottle.cli import told
from bot_bottle.egress.memory import share_one_pool
from bot_bottle.sidecar.harden import suspend_collector


def main(argv: list[str]) -> int:
    """Take the config from its descriptor and serve."""
    share_one_pool()
    suspend_collector()
    from bot_bottle.egress.standalone import run_proxy  # noqa: PLC0415 - nothing is collected while it loads
    from bot_bottle.sidecar.config import SidecarConfig  # noqa: PLC0415

    fd, address, port, ca_dir = argv
    with os.fdopen(int(fd), "rb") as file:
        config = SidecarConfig.from_wire(file.read())
    return told(lambda: run_proxy(config, listen=(address, int(port)), ca_dir=Path(ca_dir)))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # As in a sidecar: the log is closed, and nothing is won by taking the interpreter apart first.
    os._exit(code)
