"""The launcher's side of a sidecar: start it, learn its CA, hand it sockets, end it.

The sidecar is our own program under the same interpreter. Its config, the only place of credentials, goes
down a pipe that is closed once read; its environment is built from nothing; its last words go to a memory
file, so that no failure is silent and no pipe can fill.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from typing import TYPE_CHECKING, Self

from bot_bottle.errors import LaunchError
from bot_bottle.process import start_own
from bot_bottle.sidecar.control import control_pair, receive_message
from bot_bottle.sidecar.listeners import send_listeners

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from bot_bottle.sidecar.config import SidecarConfig
    from bot_bottle.sidecar.listeners import ListenerRole

_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_LAST_WORDS_BYTES = 2000

#: The operator's word on which roots to trust; nothing else of the environment is passed on.
_PASSED_ENV: tuple[str, ...] = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class SidecarProcess:
    """One running sidecar. Not thread-safe; made by :meth:`start`."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: socket.socket, config_fd: int, words_fd: int
    ) -> None:
        self._process = process
        self._control = control
        self._config_fd = config_fd
        self._words_fd = words_fd
        self._ca_pem = ""
        self._closed = False

    @classmethod
    def start(cls, config: SidecarConfig, ahead: SidecarProcess | None = None) -> SidecarProcess:
        """Spawn a sidecar and give it ``config``; returns at once, without waiting for it.

        ``ahead`` is one that :meth:`start_ahead` began, which is then the caller's no more. Raises
        :class:`LaunchError`, and what :meth:`start_ahead` raises.
        """
        sidecar = ahead or cls.start_ahead()
        sidecar._tell(config)
        return sidecar

    @classmethod
    def start_ahead(cls) -> SidecarProcess:
        """Spawn a sidecar that loads what it is made of and waits for its config; returns at once.

        It knows nothing and holds nothing; it ends with this process, or by :meth:`close`. Must be called
        from the main thread: the kernel ends the sidecar when the *thread* that started it ends (prctl(2),
        PR_SET_PDEATHSIG). Raises :class:`LaunchError`.
        """
        if threading.current_thread() is not threading.main_thread():
            raise LaunchError("a sidecar can be started from the main thread only")
        ours, theirs = control_pair()
        ours.settimeout(_START_SECONDS)
        read_fd, write_fd = os.pipe()
        words_fd = os.memfd_create("sidecar-words", os.MFD_CLOEXEC)
        try:
            process = _spawn(config_fd=read_fd, control_fd=theirs.fileno(), words_fd=words_fd)
        except OSError as error:
            ours.close()
            os.close(write_fd)
            os.close(words_fd)
            raise LaunchError(f"the sidecar could not be started: {error.strerror}") from None
        finally:
            os.close(read_fd)
            theirs.close()
        return cls(process, ours, write_fd, words_fd)

    @property
    def pid(self) -> int:
        """The sidecar's process id on this host."""
        return self._process.pid

    @property
    def ca_pem(self) -> str:
        """The sidecar's CA certificate; waits for it. Raises :class:`LaunchError` with its last words."""
        if not self._ca_pem:
            message = self._expect("ca")
            self._ca_pem = str(message["pem"])
        return self._ca_pem

    def give_listeners(self, listeners: Sequence[tuple[ListenerRole, socket.socket]]) -> None:
        """Hand over bound (UDP) or listening (TCP) sockets and wait until they are served.

        The caller keeps its own copies and may close them. Raises :class:`LaunchError`.
        """
        if self._closed:
            raise LaunchError("the sidecar has been closed")
        self.ca_pem  # noqa: B018 - the CA message comes first on the channel
        try:
            send_listeners(self._control, listeners)
        except OSError:
            raise LaunchError(self._death("it did not take its sockets")) from None
        self._expect("ready")

    def alive(self) -> bool:
        """Tell whether the sidecar still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the sidecar: the end of its control channel tells it to leave; it is killed if it stays."""
        if self._closed:
            return
        self._closed = True
        self._control.close()
        if self._config_fd >= 0:
            os.close(self._config_fd)
            self._process.kill()  # it was never told anything, so there is nothing for it to end in order
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            os.close(self._words_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _tell(self, config: SidecarConfig) -> None:
        fd, self._config_fd = self._config_fd, -1
        try:
            with os.fdopen(fd, "wb") as pipe:
                pipe.write(config.to_wire())
        except OSError:
            message = self._death("it did not read its config")
            self.close()
            raise LaunchError(message) from None

    def _expect(self, event: str) -> dict[str, object]:
        if self._closed:
            raise LaunchError("the sidecar has been closed")
        try:
            received = receive_message(self._control)
        except TimeoutError:
            raise LaunchError(
                self._death(f"it did not say '{event}' within {_START_SECONDS:.0f} s")
            ) from None
        except (OSError, ValueError, TypeError):
            received = None
        if received is None:
            raise LaunchError(self._death("it ended while it was starting"))
        message, fds = received
        for fd in fds:
            os.close(fd)
        if message.get("event") == "error":
            raise LaunchError(f"the sidecar refused to start: {message.get('message')}")
        if message.get("event") != event:
            raise LaunchError(self._death(f"it said '{message.get('event')}' where '{event}' was due"))
        return message

    def _death(self, what: str) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        size = os.fstat(self._words_fd).st_size
        words = os.pread(self._words_fd, _LAST_WORDS_BYTES, max(0, size - _LAST_WORDS_BYTES))
        last = words.decode(errors="replace").strip().splitlines()[-1:]
        return f"the sidecar failed: {what}" + (f"; its last words: {last[0]}" if last else "")


def _spawn(*, config_fd: int, control_fd: int, words_fd: int) -> subprocess.Popen[bytes]:
    numbers = (os.getpid(), config_fd, control_fd)
    return start_own(
        "bot_bottle.sidecar",
        *map(str, numbers),
        pass_fds=(config_fd, control_fd),
        stderr=words_fd,
        env={name: os.environ[name] for name in _PASSED_ENV if name in os.environ},
    )
