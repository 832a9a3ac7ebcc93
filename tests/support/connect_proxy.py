"""A forward proxy that speaks CONNECT alone, and leads every tunnel to one place."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

_SECONDS = 20.0


class ConnectProxy:
    """Notes what it is asked and gives one answer; behind a 200 the tunnel leads to ``port`` on loopback."""

    def __init__(self, port: int, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self._target = port
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.asked: list[bytes] = []
        #: Everything that clients sent through tunnels.
        self.passed = b""
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(_SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            self._start(self._serve, sock)

    def _start(self, function: object, *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.settimeout(_SECONDS)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                more = client.recv(65536)
                if not more:
                    return
                head += more
            self.asked.append(head)
            if b" 200 " not in self._answer[:16]:
                client.sendall(self._answer)
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", self._target), _SECONDS)
            self._open.append(server)
            client.sendall(self._answer)
            self._start(self._pump, server, client)
            self._pump(client, server, note=True)

    def _pump(self, source: socket.socket, sink: socket.socket, *, note: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if note:
                    self.passed += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
