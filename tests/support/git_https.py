"""Git's own smart-HTTP server behind TLS, for one token; it notes the credentials it is sent."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bot_bottle.demo.authority import Authority


class GitHttps(ThreadingHTTPServer):
    """Serves the repositories of ``folder`` to who knows ``token``; ``redirect`` sends all elsewhere."""

    daemon_threads = True

    def __init__(self, folder: Path, *, token: str, host: str, authority: Authority) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.token = folder, token
        self.redirect = ""
        self.seen: list[str] = []
        self.socket = authority.server_context(host).wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: GitHttps
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _serve(self, body: bytes) -> None:
        sent = self.headers.get("Authorization", "")
        self.server.seen.append(sent)
        if self.server.redirect:
            self._answer(302, [("Location", self.server.redirect + self.path)], b"")
            return
        user, _, password = base64.b64decode(sent.removeprefix("Basic ")).decode().partition(":")
        if not user or password != self.server.token:
            message = f"no entry with {sent} {password}\n".encode()
            fields = [("WWW-Authenticate", 'Basic realm="git"'), ("Content-Type", "text/plain")]
            self._answer(401, fields, message)
            return
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_USER": user,
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [(k, v.strip()) for k, _, v in (line.partition(":") for line in head.decode().split("\r\n"))]
        status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
        self._answer(status, [field for field in fields if field[0] != "Status"], content)

    def _answer(self, status: int, fields: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def git_https(folder: Path, *, token: str, host: str, authority: Authority) -> Iterator[GitHttps]:
    """Run the server for a while."""
    server = GitHttps(folder, token=token, host=host, authority=authority)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
