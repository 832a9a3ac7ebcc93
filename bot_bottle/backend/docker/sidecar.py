"""A sidecar in a container of its own, beside an agent's container that has no network.

Its config goes down the attached standard input, never by environment, argument, file or label; the end of
that attachment is its end too, however the launcher goes. Its doors are opened in the agent's network
namespace by a doorkeeper, a container that lives for an instant (:mod:`bot_bottle.sidecar.doorkeeper`).
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bot_bottle.audit_copy import AuditCopy
from bot_bottle.backend.docker import loopback, salvage
from bot_bottle.backend.docker.conversation import Conversation
from bot_bottle.backend.docker.doorkeeper import keep_doors
from bot_bottle.backend.docker.engine import engine_errors
from bot_bottle.backend.docker.labels import make_labels
from bot_bottle.backend.docker.removal import remove_container, remove_volume
from bot_bottle.backend.docker.sidecar_options import (
    LOG_INSIDE,
    SidecarNames,
    doorkeeper_options,
    sidecar_options,
)
from bot_bottle.backend.docker.streams import Multiplexed
from bot_bottle.errors import BotBottleError, LaunchError
from bot_bottle.sidecar import handover
from bot_bottle.sidecar.stdio import LENGTH_BYTES

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

    from docker import APIClient

    from bot_bottle.backend.docker.control import ControlThread
    from bot_bottle.backend.docker.engine import Engine
    from bot_bottle.sidecar.config import SidecarConfig

_START_SECONDS = 60.0
_SYNC_SECONDS = 30.0
#: How long a sidecar that was told to end may pass nothing on, in seconds.
_STOP_PATIENCE = 10.0
_SEND_SECONDS = 60.0
_ORDER_SECONDS = 30.0
_STREAMS = ("stdin", "stdout", "stderr", "stream")
_NOT_STARTED = "the sidecar's container could not be started"
_NOT_OPENED = "the sidecar's sockets could not be opened in the bottle"


class ContainerSidecar:
    """One running sidecar. Made by :meth:`start`; used by one thread, but for :meth:`order`."""

    def __init__(
        self, engine: Engine, *, image: str, config: SidecarConfig, on_death: Callable[[str], None] | None
    ) -> None:
        self._engine = engine
        self._image = image
        self._identity = config.identity
        self._names = SidecarNames(identity=config.identity)
        self._audit_path = Path(config.audit_path)
        self._on_death = on_death
        self._talk = Conversation()
        self._streams: Multiplexed | None = None
        self._container = ""
        self._doors: threading.Thread | None = None
        self._doors_volume = ""
        self._doors_failure = ""
        self._brought_up = threading.Event()
        self._syncs = 0
        self._orders = 0
        self._sending = threading.Lock()
        self._control: ControlThread | None = None
        self._closing = False
        self._closed = False

    @classmethod
    def start(
        cls,
        engine: Engine,
        *,
        image: str,
        config: SidecarConfig,
        network: str = "",
        on_death: Callable[[str], None] | None = None,
    ) -> ContainerSidecar:
        """Begin to bring a sidecar up from ``image`` and give it ``config``; returns at once.

        What it records is added to the host's log at ``config.audit_path``, after what a dead launch of the
        same identity left on the engine. ``network`` is the engine's network it dials out on (empty: the
        default one). ``on_death`` is called once, from another thread, with a sentence, where the sidecar
        ends after its doors were opened without having been told to. Whatever fails is raised by what is
        called next; :meth:`close` is due in any case.
        """
        sidecar = cls(engine, image=image, config=config, on_death=on_death)
        thread = threading.Thread(
            target=sidecar._run, args=(config, network), name="bot-bottle-sidecar", daemon=True
        )
        thread.start()
        return sidecar

    @property
    def ca_pem(self) -> str:
        """The sidecar's CA certificate; waits for it. Raises :class:`LaunchError` with its last words."""
        self._require_open()
        self._talk.wait(lambda: bool(self._talk.ca_pem), _START_SECONDS, "make its CA")
        return self._talk.ca_pem

    def begin_doors(self, agent: str, *, open_network: bool = False) -> None:
        """Begin to open the sidecar's ports on the loopback of the running container ``agent``, once.

        ``open_network`` is for an agent whose runtime does not set its network's switches (gVisor's). Returns
        at once; nothing of the agent's may run before :meth:`await_doors` has.
        """
        self._require_open()
        self._doors = threading.Thread(
            target=self._open_doors, args=(agent, open_network), name="bot-bottle-doors", daemon=True
        )
        self._doors.start()
        # With asyncio, which serve_control will need: the engine is busy with the doorkeeper now.
        import bot_bottle.backend.docker.control  # noqa: F401, PLC0415

    def await_doors(self) -> None:
        """Wait until the ports are served. Raises :class:`LaunchError` where they cannot be."""
        self._require_open()
        self._talk.wait(
            lambda: self._talk.ready or bool(self._doors_failure), _START_SECONDS, "take its sockets"
        )
        if not self._talk.ready:
            raise LaunchError(self._doors_failure)

    def sync(self) -> None:
        """Wait until all that is on record by now is in the host's log. Raises :class:`LaunchError`."""
        self._require_open()
        self._syncs += 1
        number = self._syncs
        self._send({"event": "sync", "id": number})
        self._talk.wait(
            lambda: self._talk.synced >= number or bool(self._talk.copy_fault),
            _SYNC_SECONDS,
            "pass its log on",
        )
        if self._talk.copy_fault:
            raise LaunchError(f"{self._audit_path} cannot be written: {self._talk.copy_fault}")

    def serve_control(self, listener: socket.socket) -> None:
        """Serve the operator's control socket until the sidecar is closed; the caller's copy stays its own.

        To be called once, when the ports are served. Raises ``OSError``.
        """
        from bot_bottle.backend.docker.control import ControlThread  # noqa: PLC0415 - loaded in begin_doors

        self._require_open()
        self._control = ControlThread(listener, self._audit_path, self.order)
        self._talk.on_copied = self._control.grew
        if self._talk.over:
            self._control.close()

    def order(self, order: Mapping[str, object]) -> dict[str, object]:
        """Have the sidecar carry an order out and give its answer, from any thread.

        Raises :class:`LaunchError` where it does not answer.
        """
        with self._sending:
            self._orders += 1
            number = self._orders
        self._send({"event": "order", "id": number, "order": dict(order)})
        self._talk.wait(lambda: number in self._talk.answers, _ORDER_SECONDS, "answer an order")
        return self._talk.answers.pop(number)

    def alive(self) -> bool:
        """Tell whether the sidecar still runs, or is still coming up."""
        return not self._closed and not self._talk.over

    def close(self) -> None:
        """End the sidecar, complete the host's log and remove everything; safe to call again.

        Where something cannot be removed, or the log not completed, it is left for the next launch or
        ``cleanup`` and said on stderr.
        """
        if self._closed:
            return
        self._closing = True
        try:
            if self._control is not None:
                self._control.close()
            self._brought_up.wait(_START_SECONDS)
            if self._streams is not None and not self._talk.over:
                with contextlib.suppress(LaunchError):
                    self._send({"event": "stop"})
                    self._talk.wait_for_end(_STOP_PATIENCE)
        finally:
            self._closed = True
            self._take_down()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closing:
            raise LaunchError("the sidecar has been closed")

    def _send(self, message: dict[str, object]) -> None:
        self._brought_up.wait(_START_SECONDS)
        if self._streams is None or self._talk.over:
            raise LaunchError(self._talk.death("it is not running"))
        try:
            with self._sending:
                self._streams.write(json.dumps(message).encode() + b"\n", _SEND_SECONDS)
        except OSError as error:
            raise LaunchError(self._talk.death("it does not listen")) from error

    @contextlib.contextmanager
    def _client(self, what: str) -> Iterator[APIClient]:
        """Speak to the engine on connections of this use's own; ``what`` begins the sentence of a failure."""
        with engine_errors(what, LaunchError), contextlib.closing(self._engine.client()) as api:
            yield api

    def _take_down(self) -> None:
        if self._streams is not None:
            self._streams.abort()
        try:
            with self._client("the sidecar could not be removed from the engine") as api:
                complete = self._talk.complete
                if complete:
                    # Nothing is left to lose, so nothing is left to wait for.
                    remove_container(api, self._container)
                # By their labels: an interrupted create_container never told its id.
                salvage.end_sidecars(api, self._identity)
                if self._doors is not None and self._doors.is_alive():
                    self._doors.join(_START_SECONDS)  # it may have been about to make its container
                    salvage.end_sidecars(api, self._identity)
                self._talk.wait_until_over(_STOP_PATIENCE)
                if complete:
                    remove_volume(api, self._names.audit)
                else:
                    salvage.salvage(api, self._identity, self._audit_path)
        except LaunchError as error:
            print(f"bot-bottle: {error}; try: bot-bottle cleanup", file=sys.stderr)

    # The thread that opens its doors.

    def _open_doors(self, agent: str, open_network: bool) -> None:  # noqa: FBT001 - a thread's target
        try:
            self._talk.wait(lambda: bool(self._doors_volume), _START_SECONDS, "have its container")
            with self._client(_NOT_OPENED) as api:
                words = self._keep_doors(api, agent, open_network)
            self._doors_failure = f"{_NOT_OPENED}: {words}" if words else ""
        except BotBottleError as error:
            self._doors_failure = str(error)
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            self._doors_failure = f"{_NOT_OPENED}: an unexpected {type(error).__name__}"
        self._talk.poke()

    def _keep_doors(self, api: APIClient, agent: str, open_network: bool) -> str:  # noqa: FBT001 - as above
        from docker import errors  # noqa: PLC0415 - the SDK is imported late

        def keep(switches: Mapping[str, str] | None) -> str:
            options = doorkeeper_options(
                api,
                self._engine.facts,
                image=self._image,
                identity=self._identity,
                agent=agent,
                volume=self._doors_volume,
                switches=switches,
            )
            self._require_open()
            return keep_doors(api, options)

        if not open_network:
            return keep(None)
        try:
            return keep(loopback.switches())
        except errors.APIError as error:
            if loopback.NO_IPV6 not in str(error):
                raise
        remove_container(api, self._names.doorkeeper)
        return keep(loopback.switches(ipv6=False))

    # The thread that brings it up and then hears it.

    def _run(self, config: SidecarConfig, network: str) -> None:
        failure = ""
        try:
            with contextlib.ExitStack() as stack:
                with self._client(_NOT_STARTED) as api:
                    streams = self._bring_up(api, config, network, stack)
                self._brought_up.set()
                for stream, data in streams:
                    self._talk.hear(stream, data)
        except BotBottleError as error:
            failure = str(error)
        except (OSError, ValueError) as error:
            failure = self._talk.death(f"the connection to it broke ({type(error).__name__})")
        except Exception as error:  # noqa: BLE001 - told to whoever waits; its text could quote the config
            failure = self._talk.death(f"an unexpected {type(error).__name__} on the launcher's side")
        finally:
            self._talk.end(failure)
            self._brought_up.set()
            if self._control is not None:
                self._control.close()  # who follows events is to hear of the end
        if not self._closing and self._container:
            words = self._make_sure_of_end() or failure or self._talk.death("it ended")
            if self._on_death is not None and self._talk.ready and not self._closing:
                self._on_death(words)

    def _make_sure_of_end(self) -> str:
        """End what cannot be heard any more; gives a sentence where not even that is possible."""
        try:
            with self._client("the sidecar cannot be heard any more, and perhaps runs on") as api:
                remove_container(api, self._container)
        except LaunchError as error:
            return str(error)
        return ""

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LaunchError(self._talk.death("it did not read its config")) from error

    def _bring_up(
        self, api: APIClient, config: SidecarConfig, network: str, stack: contextlib.ExitStack
    ) -> Multiplexed:
        """Do so; what is to be closed when the sidecar is over goes on ``stack``."""
        salvage.salvage(api, self._identity, self._audit_path)
        try:
            copy = AuditCopy.open(self._audit_path)
        except (OSError, ValueError) as error:
            detail = error.strerror or error if isinstance(error, OSError) else error
            raise LaunchError(f"the audit log cannot be opened: {detail}") from error
        stack.callback(copy.close)
        self._talk.record_in(copy)
        wire = replace(config, audit_path=str(LOG_INSIDE), audit_after=copy.end).to_wire()
        self._require_open()
        labels = make_labels("audit", self._identity)
        made = api.create_volume(self._names.audit, labels=labels)
        if made.get("Labels") != labels:  # one that was there already is no error of the engine's
            raise LaunchError(f"the volume {self._names.audit} on this engine is not this installation's")
        options = sidecar_options(
            api, self._engine.facts, image=self._image, identity=self._identity, network=network
        )
        container = self._container = api.create_container(**options)["Id"]
        mounts = api.inspect_container(container)["Mounts"]
        self._doors_volume = next(
            mount["Name"] for mount in mounts if mount["Destination"] == handover.FOLDER
        )
        self._talk.poke()
        self._require_open()
        streams = Multiplexed(api.attach_socket(container, dict.fromkeys(_STREAMS, 1)))
        stack.callback(streams.close)
        told = memoryview(len(wire).to_bytes(LENGTH_BYTES, "big") + wire)
        # Its beginning, mostly all of it, is there when the sidecar first looks: an engine takes its time to
        # say that a container has started.
        with self._telling():
            sent = streams.write_now(told)
        api.start(container)
        with self._telling():
            streams.write(told[sent:], _SEND_SECONDS)
        self._streams = streams
        return streams
