"""The sidecar's life: read the config, mint the CA, take the sockets, serve, end the log."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bot_bottle.audit import AuditLog
from bot_bottle.egress.ca import CertificateAuthority
from bot_bottle.sidecar.config import SidecarConfig
from bot_bottle.sidecar.listeners import taken_listeners

if TYPE_CHECKING:
    import asyncio

    from bot_bottle.sidecar.channel import Channel, Message
    from bot_bottle.sidecar.parts import Parts

_STUCK_SECONDS = 4
_MAX_REPORTS = 200


def run(channel: Channel) -> int:
    """Serve until the launcher is done or SIGTERM comes; gives the process's exit code."""
    if channel.config_is_due():
        # Started ahead: the launcher is still reading its manifests, and this is a process of its own.
        load()
    try:
        config = SidecarConfig.from_wire(channel.read_config())
        if channel.private_folder:
            config = replace(config, cache=channel.private_folder)
        audit = AuditLog.open(
            Path(config.audit_path), redact=config.guarded().values(), after=config.audit_after
        )
    except OSError as error:
        return _give_up(channel, f"the audit log cannot be opened: {error.strerror or error}")
    except (ValueError, KeyError, TypeError) as error:
        # A config error's text could quote the config; the log's own ValueError names the file only.
        detail = str(error) if type(error) is ValueError else type(error).__name__
        return _give_up(channel, f"the config or the audit log is not valid: {detail}")
    try:
        ca = CertificateAuthority(config.identity)
        audit.append("start", identity=config.identity, routes=len(config.routes), pid=os.getpid())
        # The launcher places this certificate while we go on loading.
        channel.say({"event": "ca", "pem": ca.certificate_pem})
    except OSError as error:
        audit.close()
        return _give_up(channel, f"the audit log cannot be written: {error.strerror or error}")
    try:
        return _serve(config, channel, audit, ca)
    finally:
        audit.close()
        signal.alarm(0)
        channel.close()


def load() -> None:
    """Import what serving takes, which is most of the time that a sidecar needs to come up."""
    import asyncio  # noqa: F401, PLC0415

    import uvloop  # noqa: F401, PLC0415

    from bot_bottle.sidecar import control_server, parts  # noqa: F401, PLC0415


def _serve(config: SidecarConfig, channel: Channel, audit: AuditLog, ca: CertificateAuthority) -> int:
    # Loaded after the CA has been sent, while the launcher is busy placing it.
    import asyncio  # noqa: PLC0415

    import uvloop  # noqa: PLC0415

    from bot_bottle.sidecar.harden import spare_collector  # noqa: PLC0415
    from bot_bottle.sidecar.parts import Parts  # noqa: PLC0415

    os.umask(0o077)
    loop = cast("asyncio.AbstractEventLoop", uvloop.new_event_loop())
    asyncio.set_event_loop(loop)
    Reporter().listen(loop)
    parts = Parts(config, audit=audit, ca=ca, loop=loop, folder=channel.private_folder)
    spare_collector()
    stop = loop.create_future()
    tasks: set[asyncio.Task[None]] = set()

    def end() -> None:
        if not stop.done():
            stop.set_result(None)

    def take(message: Message, fds: list[int]) -> None:
        if message.get("event") == "order":
            channel.say({"event": "answer", "id": message.get("id"), "answer": _answer(parts, message)})
            return
        task = loop.create_task(_take_listeners(parts, channel, message, fds))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    channel.attend(loop, audit, take, end)
    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        loop.run_until_complete(stop)
    finally:
        signal.alarm(_STUCK_SECONDS)  # nothing from here to the end of the log may keep the process
        parts.close()
        with contextlib.suppress(Exception):
            loop.run_until_complete(asyncio.sleep(0))
    return 0


def _answer(parts: Parts, message: Message) -> Message:
    """Carry out an order that the launcher passes on."""
    order = message.get("order")
    return parts.answer(order if isinstance(order, dict) else {})


async def _take_listeners(parts: Parts, channel: Channel, message: Message, fds: list[int]) -> None:
    try:
        await parts.serve(taken_listeners(message, fds))
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            channel.say({"event": "error", "message": f"a listener cannot be served: {error}"})
        return
    with contextlib.suppress(OSError):
        channel.say({"event": "ready"})


def _give_up(channel: Channel, message: str) -> int:
    with contextlib.suppress(OSError):
        channel.say({"event": "error", "message": message})
    sys.stderr.write(f"{message}\n")
    return 4


class Reporter:
    """Says that something broke, without its data, a bounded number of times.

    What it writes to may be memory, and an agent can make many connections break.
    """

    def __init__(self, most: int = _MAX_REPORTS) -> None:
        self._left = most

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear of what breaks on ``loop`` and of what no caller could be told.

        The latter is reached from outside: the ssl module says so of a server name that is not ASCII.
        """
        loop.set_exception_handler(self)
        sys.unraisablehook = lambda unraisable: self(
            loop, {"message": "an error nobody could be told", "exception": unraisable.exc_value}
        )

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
