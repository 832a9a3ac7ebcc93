"""What attack scripts have at hand inside a bottle: raw sockets to the sidecar and little else.

The same text runs outside as a control, where it must succeed, so an attack that fails for a reason of its
own does not pass for one that was held.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.lab import RunningBottle

PRELUDE = """
import ctypes, errno, json, os, socket, ssl, struct, sys

CA = "/etc/ssl/certs/ca-certificates.crt"
SIDECAR = os.environ.get("http_proxy", "//127.0.0.1:9099").partition("//")[2].rpartition(":")[0]
socket.setdefaulttimeout(5)

def proxy():
    return socket.create_connection((SIDECAR, 9099))

def read_head(sock):
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        more = sock.recv(1)
        if not more:
            break
        data += more
    return data

def connect(authority, host=None):
    "Open a CONNECT tunnel; gives the socket and the proxy's answer."
    sock = proxy()
    authority = authority if isinstance(authority, bytes) else authority.encode()
    host = authority if host is None else host.encode()
    sock.sendall(b"CONNECT " + authority + b" HTTP/1.1\\r\\nHost: " + host + b"\\r\\n\\r\\n")
    return sock, read_head(sock)

def tls(sock, sni, verify=True):
    context = ssl.create_default_context(cafile=CA)
    context.check_hostname = verify and sni is not None
    if not verify:
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=sni)

def ask(sock, request):
    "Send bytes and read what comes until the other side has nothing more to say."
    sock.sendall(request if isinstance(request, bytes) else request.encode())
    return read_answer(sock)

def read_answer(sock):
    "Read one HTTP response by its Content-Length."
    try:
        head = read_head(sock)
        length = 0
        for line in head.split(b"\\r\\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = b""
        while len(body) < length:
            more = sock.recv(length - len(body))
            if not more:
                break
            body += more
        return (head + body).decode("latin-1")
    except OSError as error:
        return "error: " + str(error)

def tell(**result):
    print(json.dumps(result))

libc = ctypes.CDLL(None, use_errno=True)

def syscall(number, *args):
    "Give 0 or the errno's name."
    ctypes.set_errno(0)
    longs = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = libc.syscall(ctypes.c_long(number), *longs)
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def run(bottle: RunningBottle, code: str, **values: object) -> dict[str, Any]:
    """Run Python in the bottle after :data:`PRELUDE`; gives what it passed to ``tell``.

    ``values`` become variables of the script.
    """
    assignments = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    result: dict[str, Any] = bottle.py(PRELUDE + assignments + code).json()
    return result


def refusal(answer: str) -> dict[str, str]:
    """Read the structured refusal from a response's text; empty where it is none."""
    body = answer.partition("\r\n\r\n")[2]
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) and parsed.get("error") == "bot_bottle_denied" else {}


def status(answer: str) -> int:
    """Give a response's status code, 0 where there was none."""
    parts = answer.split(" ", 2)
    return int(parts[1]) if len(parts) > 2 and parts[0].startswith("HTTP/") else 0
