"""Every road that leads to an engine: its socket, TCP, TLS, ssh, and the client's contexts for them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import select
import socket
import ssl
import threading
from typing import TYPE_CHECKING

from tests.support.ssh_server import ssh_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bot_bottle.demo.authority import Authority

ROADS = (
    "unix",
    "tcp",
    "tls",
    "ssh",
    "ssh to a named socket",
    "context",
    "current context",
    "tls context",
    "ssh context",
)


@contextlib.contextmanager
def road(kind: str, engine_host: str, folder: Path, authority: Authority) -> Iterator[dict[str, str]]:
    """Open one road to the engine on the unix socket ``engine_host``; gives the variables that choose it.

    ``folder`` is empty and becomes the docker client's (``DOCKER_CONFIG``). Raises ``NoSshError``.
    """
    client = folder / "client"
    client.mkdir()
    (client / "config.json").write_text("{}")
    chosen = {"DOCKER_CONFIG": str(client)}
    with contextlib.ExitStack() as stack:
        if kind.startswith("ssh"):
            server = folder / "sshd"
            server.mkdir()
            elsewhere = {} if "named" in kind else {"DOCKER_HOST": engine_host}
            address, programs = stack.enter_context(ssh_server(server, elsewhere or {"NONE": "none"}))
            chosen["PATH_FIRST"] = str(programs)
            url = f"ssh://{address}" + ("" if elsewhere else engine_host.removeprefix("unix://"))
        elif kind.startswith("tls"):
            port = stack.enter_context(_forwarder(engine_host, _server_side(authority, folder)))
            url = f"tcp://localhost:{port}"
        elif kind == "tcp":
            url = f"tcp://127.0.0.1:{stack.enter_context(_forwarder(engine_host, None))}"
        else:
            url = engine_host
        if kind.endswith("context"):
            _write_context(client, "there", url, certificates=folder if kind.startswith("tls") else None)
            if kind == "current context":
                (client / "config.json").write_text('{"currentContext": "there"}')
            else:
                chosen["DOCKER_CONTEXT"] = "there"
        else:
            chosen["DOCKER_HOST"] = url
            if kind == "tls":
                chosen |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
        yield chosen


def _write_context(client: Path, name: str, url: str, *, certificates: Path | None) -> None:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = client / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": url, "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoints}))
    if certificates is not None:
        place = client / "contexts" / "tls" / digest / "docker"
        place.mkdir(parents=True)
        for file in ("ca.pem", "cert.pem", "key.pem"):
            (place / file).write_bytes((certificates / file).read_bytes())


def _server_side(authority: Authority, folder: Path) -> ssl.SSLContext:
    """Write what a client shows and trusts to ``folder``; gives a server that asks for it."""
    (folder / "ca.pem").write_text(authority.pem)
    certificate, key = authority.leaf("localhost")
    (folder / "cert.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@contextlib.contextmanager
def _forwarder(engine_host: str, tls: ssl.SSLContext | None) -> Iterator[int]:
    """Listen on loopback and pass every connection to the engine's socket, half-closed ends included."""
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threads.append(_started(functools.partial(_pass, connection, engine_host, tls)))

    acceptor = _started(serve)
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        server.close()
        for thread in threads:
            thread.join()


def _started(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def _pass(near: socket.socket, engine_host: str, tls: ssl.SSLContext | None) -> None:
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        stack.callback(near.close)
        if tls is not None:
            near = stack.enter_context(tls.wrap_socket(near, server_side=True, suppress_ragged_eofs=True))
        far = stack.enter_context(socket.socket(socket.AF_UNIX))
        far.connect(engine_host.removeprefix("unix://"))
        other = {near: far, far: near}
        open_ends = [near, far]
        while far in open_ends:
            waiting = isinstance(near, ssl.SSLSocket) and near in open_ends and near.pending()
            ready = [near] if waiting else select.select(open_ends, [], [])[0]
            for end in ready:
                data = end.recv(65536)
                if data:
                    other[end].sendall(data)
                    continue
                open_ends.remove(end)
                if end is near:
                    far.shutdown(socket.SHUT_WR)
