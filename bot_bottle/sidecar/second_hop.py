"""The external pipelock program beside one sidecar: started, asked for its health, started anew, stopped.

It is a proxy on loopback that egress asks by CONNECT for every upstream, by name: where a name leads is the
program's to find and to check. Whatever is wrong with it, nothing leaves: without it there is no way out.

Its port is free when it is chosen, and whenever the program is started anew; any process of this machine may
take it then. So what listens there counts only once the kernel's table shows it as a socket of the program's
process, and each connection is held against that very socket before a word is said on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.egress.ca import new_root
from bot_bottle.files import write_atomic
from bot_bottle.pipelock.external import HopPlace, external_config
from bot_bottle.sidecar.config import UpstreamProxy
from bot_bottle.socket_table import holds, listeners, read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.sidecar.config import SecondHopSettings

_START_SECONDS = 20.0
_HEALTH_SECONDS = 2.0
_PERIOD_SECONDS = 1.0
_STOP_SECONDS = 2.0
#: So often in a row it may not say that it is well before it is started anew.
_MOST_SILENCES = 5

#: What the program is started by: it dies with us (prctl(2), PR_SET_PDEATHSIG), however we die.
_BOUND = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)


class SecondHop:
    """One running program; made and used on one event loop, except that it is started before it runs."""

    def __init__(
        self,
        settings: SecondHopSettings,
        routes: Sequence[EgressRoute],
        *,
        bypass: Sequence[str],
        note: Callable[[str], None],
    ) -> None:
        """Prepare its folder and start it; raises ``OSError``. ``note`` puts what becomes of it on record."""
        self._program = settings.program
        self._folder = Path(settings.folder)
        self._note = note
        self._bypass = tuple(bypass)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True)
        certificate, key = new_root("bot-bottle second hop")
        cert_file, key_file = self._folder / "ca.pem", self._folder / "ca-key.pem"
        write_atomic(cert_file, certificate, mode=0o600)
        write_atomic(key_file, key, mode=0o600)
        self.ca_pem = certificate.decode("ascii")
        self._place = HopPlace(port=_free_port(), ca_cert=str(cert_file), ca_key=str(key_file))
        self._config = self._folder / "pipelock.yaml"
        self._text = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._listener = 0  # the inode of the program's socket; 0 where it was not seen
        self._keeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._write(routes)
        self._start()

    @property
    def proxy(self) -> UpstreamProxy:
        """The program as egress asks it."""
        return UpstreamProxy(
            host="127.0.0.1", port=self._place.port, resolves=True, bypass=self._bypass, vouch=self.vouch
        )

    def vouch(self) -> bool:
        """Tell whether the socket that listens is the one that was seen to be the program's.

        A socket keeps its inode for as long as it is there, and no other listens beside it: so it took every
        connection that was made since.
        """
        return self._listener != 0 and self._listening() == (self._listener,)

    def _listening(self) -> tuple[int, ...]:
        try:
            return listeners(read_table(), ("127.0.0.1", self._place.port))
        except OSError:
            return ()

    async def ready(self) -> None:
        """Wait until it says that it is well, and look after it from then on; raises ``OSError``."""
        if self._keeper is not None:
            return
        await self._await_health()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    def follow(self, routes: Sequence[EgressRoute]) -> None:
        """Start it anew where ``routes`` make another config."""
        if self._write(routes):
            self._changed.set()

    def close(self) -> None:
        """Stop it and remove what was made for it."""
        if self._keeper is not None:
            self._keeper.cancel()
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, routes: Sequence[EgressRoute]) -> bool:
        text = external_config(routes, self._place)
        if text == self._text:
            return False
        self._text = text
        write_atomic(self._config, text.encode(), mode=0o600)
        return True

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid())),
                *(self._program, "run", "--config", str(self._config)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            # Nothing of ours: no credential, no proxy, nothing that configures it.
            env={"PATH": os.defpath, "HOME": str(self._folder), "LANG": "C.UTF-8"},
        )

    def _stop(self) -> None:
        process, self._process = self._process, None
        self._listener = 0
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    async def _keep(self) -> None:
        silences = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD_SECONDS):
                    await self._changed.wait()
            if self._changed.is_set():
                self._changed.clear()
                why = "its config has changed"
            elif self._process is None or self._process.poll() is not None:
                why = "it had ended"
            elif not self.vouch():
                why = "its port was not its own"
            else:
                silences = 0 if await self._is_well() else silences + 1
                if silences < _MOST_SILENCES:
                    continue
                why = "it no longer answered"
            silences = 0
            self._stop()
            try:
                self._start()
                await self._await_health()
                self._note(f"pipelock was started anew: {why}")
            except OSError as error:
                self._note(f"pipelock cannot be started anew, so nothing leaves: {error}")

    async def _await_health(self) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await self._is_well():
                    if self._process is None or self._process.poll() is not None:
                        code = "" if self._process is None else f" ({self._process.returncode})"
                        raise OSError(
                            f"{self._program} ended at once{code}; see why with: "
                            f"{self._program} run --config {self._config}"
                        )
                    await asyncio.sleep(0.05)
            self._recognise()
        except TimeoutError as error:
            raise OSError(
                f"{self._program} did not say that it is well within {_START_SECONDS:g} s"
            ) from error

    def _recognise(self) -> None:
        """See that what answered is the program that was started; raises ``OSError``."""
        found = self._listening()
        if len(found) != 1 or self._process is None or not holds(self._process.pid, found[0]):
            raise OSError(
                f"another process listens at port {self._place.port} of loopback, which was to be that of "
                f"{self._program}"
            )
        self._listener = found[0]

    async def _is_well(self) -> bool:
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._place.port)
                try:
                    writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    line = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError):
            return False
        return line.split(b" ")[1:2] == [b"200"]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
