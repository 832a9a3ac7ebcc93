"""A gRPC server and client as programs of their own: `python -m tests.support.grpc_peer server|client`.

Messages are plain bytes, so no generated code is needed. In a process of its own the library's threads and
fork handlers do not meet the tests' own.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

SERVICE = "lab.Echo"


def serve(folder: Path) -> None:
    """Serve until standard input ends; the port is printed."""

    def unary(request: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        context.set_trailing_metadata((("x-seen", metadata.get("authorization", "none")[:6]), ("x-end", "1")))
        if request == b"fail":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: \u00e4")
        return b"echo " + request

    def bidi(requests: Any, context: Any) -> Any:
        context.send_initial_metadata((("x-first", "yes"),))
        for number, request in enumerate(requests):
            yield b"%d:" % number + request

    def down(request: bytes, _context: Any) -> Any:
        for number in range(int(request)):
            yield b"%06d" % number + bytes(10_000)

    def up(requests: Any, _context: Any) -> bytes:
        return b"%d" % sum(map(len, requests))

    def sleep(_request: bytes, context: Any) -> bytes:
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(20)
        (folder / "cancelled").write_text("yes")
        return b""

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    credentials = grpc.ssl_server_credentials(
        [((folder / "key.pem").read_bytes(), (folder / "leaf.pem").read_bytes())]
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


def ask(port: int, host: str, ca: Path) -> dict[str, Any]:
    """Make every kind of call; gives what came of each."""
    options = [("grpc.ssl_target_name_override", host), ("grpc.default_authority", host)]
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    said: dict[str, Any] = {}
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        unary = channel.unary_unary(f"/{SERVICE}/Unary")
        answer, call = unary.with_call(b"hello", timeout=20)
        said["unary"] = answer.decode()
        said["trailing"] = dict(call.trailing_metadata())
        try:
            unary(b"fail", timeout=20)
        except grpc.RpcError as error:
            said["failed"] = [error.code().name, error.details()]

        turns: list[str] = []
        waiting = threading.Semaphore(1)

        def requests() -> Any:
            # Each message is sent only once the one before was answered: nothing may be held back.
            for number in range(20):
                waiting.acquire(timeout=20)
                yield b"m%d" % number

        stream = channel.stream_stream(f"/{SERVICE}/Bidi")(requests(), timeout=20)
        for reply in stream:
            turns.append(reply.decode())
            waiting.release()
        said["bidi"] = turns
        said["first"] = dict(stream.initial_metadata()).get("x-first")

        received = [len(piece) for piece in channel.unary_stream(f"/{SERVICE}/Down")(b"300", timeout=60)]
        said["down"] = [len(received), sum(received)]
        total = channel.stream_unary(f"/{SERVICE}/Up")((bytes(10_000) for _ in range(300)), timeout=60)
        said["up"] = int(total)

        sleeping = channel.unary_unary(f"/{SERVICE}/Sleep").future(b"", timeout=20)
        time.sleep(0.2)
        sleeping.cancel()
        said["cancelled"] = sleeping.cancelled()

        try:
            channel.unary_unary("/forbidden.Service/Call")(b"", timeout=20)
        except grpc.RpcError as error:
            said["denied"] = [error.code().name, error.details(), dict(error.trailing_metadata() or ())]
    return said


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(Path(sys.argv[2]))
    else:
        print(json.dumps(ask(int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))))
