"""The sidecar's life: read the config, mint the CA, take the sockets, serve, end the log."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bot_bottle.audit import AuditLog
from bot_bottle.egress.ca import CertificateAuthority
from bot_bottle.sidecar.config import LISTENER_PORTS, SidecarConfig
from bot_bottle.sidecar.control import receive_message, send_message

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from bot_bottle.egress.proxy import EgressProxy
    from bot_bottle.sidecar.config import ListenerRole

_STUCK_SECONDS = 4
_MAX_REPORTS = 200


def run(config_fd: int, control_fd: int) -> int:
    """Serve until the control channel ends or SIGTERM comes; gives the process's exit code."""
    control = socket.socket(fileno=control_fd)
    os.set_inheritable(control_fd, False)  # noqa: FBT003 - the library's signature
    try:
        config = _read_config(config_fd)
        audit = AuditLog.open(Path(config.audit_path), redact=config.secrets.values())
    except OSError as error:
        return _give_up(control, f"the audit log cannot be opened: {error.strerror or error}")
    except (ValueError, KeyError, TypeError) as error:
        # A config error's text could quote the config; the log's own ValueError names the file only.
        detail = str(error) if type(error) is ValueError else type(error).__name__
        return _give_up(control, f"the config or the audit log is not valid: {detail}")
    try:
        ca = CertificateAuthority(config.identity)
        audit.append("start", identity=config.identity, routes=len(config.routes), pid=os.getpid())
        # The launcher places this certificate while we go on loading.
        send_message(control, {"event": "ca", "pem": ca.certificate_pem})
    except OSError as error:
        audit.close()
        return _give_up(control, f"the audit log cannot be written: {error.strerror or error}")
    try:
        return _serve(config, control, audit, ca)
    finally:
        audit.close()


def _serve(config: SidecarConfig, control: socket.socket, audit: AuditLog, ca: CertificateAuthority) -> int:
    # Loaded after the CA has been sent, while the launcher is busy placing it.
    import asyncio  # noqa: PLC0415

    import uvloop  # noqa: PLC0415

    from bot_bottle.egress.proxy import EgressProxy  # noqa: PLC0415

    os.umask(0o077)
    loop = cast("asyncio.AbstractEventLoop", uvloop.new_event_loop())
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(Reporter())
    proxy = EgressProxy(config, audit=audit, ca=ca, loop=loop)
    stop = loop.create_future()
    tasks: set[asyncio.Task[None]] = set()

    def end() -> None:
        if not stop.done():
            stop.set_result(None)

    def on_control() -> None:
        try:
            received = receive_message(control)
        except BlockingIOError:
            return
        except (OSError, ValueError, TypeError):
            received = None
        if received is None:
            loop.remove_reader(control.fileno())
            end()
            return
        message, fds = received
        task = loop.create_task(_take_listeners(proxy, control, message, fds))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    control.setblocking(False)  # noqa: FBT003 - the library's signature
    loop.add_reader(control.fileno(), on_control)
    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        loop.run_until_complete(stop)
    finally:
        signal.alarm(_STUCK_SECONDS)  # nothing below may keep the process
        proxy.close()
        with contextlib.suppress(Exception):
            loop.run_until_complete(asyncio.sleep(0))
    return 0


async def _take_listeners(
    proxy: EgressProxy, control: socket.socket, message: Mapping[str, object], fds: list[int]
) -> None:
    sockets = [socket.socket(fileno=fd) for fd in fds]
    roles = message.get("roles")
    try:
        if message.get("event") != "listeners" or not isinstance(roles, list) or len(roles) != len(sockets):
            raise ValueError("a listeners message names one role for each descriptor")
        if not all(role in LISTENER_PORTS for role in roles):
            raise ValueError("a listener has an unknown role")
        await proxy.serve([(cast("ListenerRole", role), s) for role, s in zip(roles, sockets, strict=True)])
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            send_message(control, {"event": "error", "message": f"a listener cannot be served: {error}"})
        return
    with contextlib.suppress(OSError):
        send_message(control, {"event": "ready"})


def _read_config(fd: int) -> SidecarConfig:
    with os.fdopen(fd, "rb") as pipe:
        return SidecarConfig.from_wire(pipe.read())


def _give_up(control: socket.socket, message: str) -> int:
    with contextlib.suppress(OSError):
        send_message(control, {"event": "error", "message": message})
    sys.stderr.write(f"{message}\n")
    return 4


class Reporter:
    """The loop's exception handler: says that something broke, without its data, a bounded number of times.

    What it writes to may be memory, and an agent can make many connections break.
    """

    def __init__(self, most: int = _MAX_REPORTS) -> None:
        self._left = most

    def __call__(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Write one line to standard error; after the last one, that there will be no more."""
        if self._left <= 0:
            return
        self._left -= 1
        error = context.get("exception")
        kind = f" ({type(error).__name__})" if error is not None else ""
        sys.stderr.write(f"egress: {context.get('message')}{kind}\n")
        if not self._left:
            sys.stderr.write("egress: further errors are not reported\n")
