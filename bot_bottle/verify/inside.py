"""What attack scripts have at hand inside a bottle: raw sockets to the sidecar and little else.

The text runs as it is in whatever Python 3 a bottle has, with the standard library alone. Where every address
is the sinkhole's, the same text runs outside as a control and must succeed there.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.backend.base import Bottle

#: In seconds; no attack takes so long, not even on a slow machine. One that hangs ends then.
PATIENCE = 300.0

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

#: More for the product's own battery: whole requests on both ways, and attempts that may fail as they like.
REQUESTS = """
def reach(port):
    "A connection to the sidecar, which answers everything, though a slow machine's late."
    return socket.create_connection((SIDECAR, port), timeout=60)

def proxy():
    return reach(9099)

def rest(sock, head):
    "The whole answer whose head was read: its body is as long as it says."
    lines = head.lower().split(b"\\r\\n")
    length = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")]
    body = b""
    while length and len(body) < length[0]:
        more = sock.recv(length[0] - len(body))
        if not more:
            break
        body += more
    return (head + body).decode("latin-1")

def request(host, target="/", method="GET", headers="", body=b"", way="proxy", sni=None, named=None):
    "One request over TLS, through the proxy or straight to port 443; gives the whole answer."
    named = host if named is None else named
    if way == "proxy":
        sock, answer = connect(host + ":443")
        if b" 200 " not in answer.split(b"\\r\\n")[0]:
            return rest(sock, answer)
    else:
        sock = reach(443)
    with tls(sock, host if sni is None else sni, verify=False) as tunnel:
        head = f"{method} {target} HTTP/1.1\\r\\nHost: {named}\\r\\n{headers}"
        if body or method == "POST":
            head += f"Content-Length: {len(body)}\\r\\n"
        return ask(tunnel, head.encode("latin-1") + b"\\r\\n" + body)

def plain(host, target, headers="", way="proxy", named=None):
    "One request without TLS."
    named = host if named is None else named
    port, prefix = (9099, "http://" + host) if way == "proxy" else (80, "")
    with reach(port) as sock:
        return ask(sock, f"GET {prefix}{target} HTTP/1.1\\r\\nHost: {named}\\r\\n{headers}\\r\\n")

def attempt(call, *args, **options):
    "What a call gives, or the error's text: an attack that is stopped is no error of the script."
    try:
        return call(*args, **options)
    except Exception as error:
        return "error: " + str(error)

def reason(answer):
    "The reason of a structured refusal, or the first line of what came instead."
    try:
        refusal = json.loads(answer.partition("\\r\\n\\r\\n")[2])
        if refusal["error"] == "bot_bottle_denied":
            return refusal["reason"]
    except (ValueError, KeyError, TypeError):
        pass
    return answer.partition("\\r\\n")[0] or "closed"

WAYS = ("proxy", "straight")
"""


def python_command() -> str:
    """Give the interpreter inside a bottle, without its environment: this machine's own, or its image's."""
    own = shlex.quote(os.path.realpath(sys.executable))
    return f"$([ -x {own} ] && echo {own} || echo python3) -I -S -"


class ScriptError(Exception):
    """An attack's script that ended by itself without a result: it proves nothing."""


def run(
    bottle: Bottle,
    code: str,
    *,
    given: Mapping[str, object] | None = None,
    **values: object,
) -> dict[str, Any]:
    """Run Python in the bottle after the preludes; gives what it passed to ``tell``.

    ``given`` and ``values`` become variables of the script. Raises :class:`ScriptError`
    where it told nothing.
    """
    assignments = "".join(f"{name} = {value!r}\n" for name, value in {**(given or {}), **values}.items())
    text = f"{PRELUDE}{REQUESTS}{assignments}{code}"
    try:
        done = bottle.exec(f"exec {python_command()}", stdin=text.encode(), timeout=PATIENCE)
    except TimeoutError:
        raise ScriptError(f"no result within {PATIENCE:g} s") from None
    try:
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise ScriptError(words[-1] if words else f"exit {done.returncode}") from None
    return told
