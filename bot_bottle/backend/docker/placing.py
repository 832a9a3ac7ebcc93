"""What root places in a fresh container before the agent may run: one command, in two turns.

The environment is there before the sidecar has made its CA, so that the command has long come up, and the
bottle's files are in their places, when the certificate comes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from bot_bottle.backend import inside
from bot_bottle.backend.docker.execs import ROOT
from bot_bottle.backend.util import AGENT_CA_BUNDLE, AGENT_CA_PATH, AGENT_JAVA_TRUST, java_truststore
from bot_bottle.errors import BotBottleError, LaunchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.backend.docker.execs import Execs

#: How long the whole may take, the wait for the sidecar's CA included, in seconds.
_SECONDS = 90.0
_FAILED = "the bottle's container could not be made"


class Placing:
    """Such a command, begun: :meth:`await_env`, then :meth:`place_ca`; :meth:`close` on every way out."""

    def __init__(self, execs: Execs, env: Mapping[str, str], *, first: str = "") -> None:
        """Begin to place ``env``; ``first`` is a script that root runs before that."""
        self._execs = execs
        self._script = first + inside.place_script(AGENT_CA_BUNDLE, AGENT_CA_PATH, AGENT_JAVA_TRUST)
        self._failure = ""
        self._words = b""
        self._there = threading.Event()
        mark = inside.new_mark().encode()
        self._first_turn = b"\n".join((mark, inside.render_env(env) + mark, b""))
        self._source, self._feed = os.pipe()
        self._thread = threading.Thread(target=self._run, name="bot-bottle-placing", daemon=True)
        self._thread.start()

    def await_env(self) -> None:
        """Wait until the environment is in its place; raises ``LaunchError`` where it cannot be."""
        self._write(self._first_turn)
        self._there.wait(_SECONDS)
        self._require_no_failure()

    def place_ca(self, pem: str) -> None:
        """Place the CA in every form and end the command; raises ``LaunchError`` where it cannot be."""
        self._write(inside.escaped(java_truststore(pem)) + b"\n" + pem.encode())
        self.close()
        self._thread.join(_SECONDS)
        self._require_no_failure()
        if self._thread.is_alive():
            raise LaunchError(f"{_FAILED}: it does not answer")

    def close(self) -> None:
        """Let the command meet the end of its input; safe to call again."""
        feed, self._feed = self._feed, -1
        if feed >= 0:
            os.close(feed)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        # What keeps the command from reading is told by the command's own end.
        with contextlib.suppress(BrokenPipeError):
            while view:
                view = view[os.write(self._feed, view) :]

    def _require_no_failure(self) -> None:
        if self._failure:
            raise LaunchError(self._failure)

    def _heard(self, data: bytes) -> None:
        self._words += data
        if inside.PLACED.encode() in self._words:
            self._there.set()

    def _run(self) -> None:
        try:
            code, words = self._execs.run_own(
                self._script, user=ROOT, given=self._source, heard=self._heard, seconds=_SECONDS
            )
            if code != 0:
                said = words.decode("utf-8", "replace")[-300:].strip()
                self._failure = f"{_FAILED}: {said or 'its environment or CA could not be placed'}"
        except BotBottleError as error:
            self._failure = str(error)
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            self._failure = f"{_FAILED}: an unexpected {type(error).__name__}"
        finally:
            os.close(self._source)
            self._there.set()
