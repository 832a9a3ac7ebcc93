"""B6-B16, G4: an allowed destination upgraded, moved, read in two ways, exhausted or pushed to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.verify.case import Case, requests, through
from bot_bottle.verify.names import BAD_NAMES
from bot_bottle.verify.stage import ALLOWED, API, FORBIDDEN, PATHS, READ

if TYPE_CHECKING:
    from typing import Any

    from bot_bottle.verify.stage import Stage

_B6 = """
upgrade = "Connection: Upgrade, HTTP2-Settings\\r\\nUpgrade: {}\\r\\nHTTP2-Settings: AAMAAABk\\r\\n"
def preface():
    sock, _ = connect(host + ":443")
    return ask(tls(sock, host), b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + mark.encode() + bytes(9))
answer = attempt(preface)
refused = not answer or answer.startswith("error") or answer.split(" ")[1:2] >= ["4"]
told["HTTP/2 preface"] = "refused" if refused else "UPGRADED"
for protocol in ("h2c", "TLS/1.0", "foo"):
    answer = attempt(plain, host, "/upgrade", upgrade.format(protocol))
    told[protocol] = "refused" if " 101 " not in answer.split("\\r\\n")[0] else "UPGRADED"
"""

_B7 = """
answer = request(host, "/moved")
place = next(line for line in answer.split("\\r\\n") if line.lower().startswith("location:")).split("//")[1]
told["where it leads"] = reason(attempt(request, place, f"/{mark}"))
"""

_B16 = """
start = "GET http://allowed.test/{} HTTP/1.1\\r\\nHost: allowed.test\\r\\n"
for name, text in (
    ("a line of 1 MiB", start.format("a" * 1048576)),
    ("a header of 1 MiB", start.format("") + "X: " + "a" * 1048576 + "\\r\\n"),
    ("20,000 headers", start.format("") + "X: y\\r\\n" * 20000),
):
    answer = attempt(lambda: ask(proxy(), text + "\\r\\n"))
    told[name] = "PASSED" if " 200 " in answer.split("\\r\\n")[0] else "refused"
idle = [proxy() for _ in range(200)]
for sock in idle:
    sock.sendall(b"GET http://allowed.test/ HTTP/1.1\\r\\nX: ")
served = " 200 " in attempt(request, "allowed.test", "/").split("\\r\\n")[0]
told["beside 200 that never end"] = "served" if served else "HELD UP"
for sock in idle:
    sock.close()
"""

_FORBIDDEN_ADDRESSES = [
    "127.0.0.1", "127.8.8.8", "0.1.2.3", "10.1.2.3", "172.16.5.4", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "192.0.2.7", "198.18.0.1", "224.0.0.251", "255.255.255.255", "::1",
    "fe80::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1",
    "2002:7f00:1::1", "2001:db8::1",
]  # fmt: skip

_LITERALS = [
    "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "0", "2852039166", "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "45.33.250.250",
]  # fmt: skip

_B8_LITERALS = """
for literal in literals:
    told[literal] = reason(attempt(plain, literal, f"/{mark}"))
"""

_B9 = """
for way in WAYS:
    told[way] = reason(attempt(plain, api, f"/{mark}", way=way))
sock, answer = connect(api + ":80")
text = f"GET /{mark} HTTP/1.1\\r\\nHost: {api}\\r\\n\\r\\n"
told["in a tunnel"] = reason(attempt(ask, sock, text) if b" 200 " in answer else rest(sock, answer))
"""

_OUTSIDE_THE_PREFIX = [
    "/private/M", "/M", "/publicity/M", "/PUBLIC/M", "/public/../private/M", "/public/./../private/M",
    "/public/..;/private/M", "/public;x=/../private/M", "/public/%2e%2e/private/M", "/public/.%2e/private/M",
    "/public/%252e%252e/private/M", "/public/%25252e%25252e/private/M", "/public/..%2fprivate/M",
    "/public/..%252fprivate/M", "/public/..%5cprivate/M", "/public/..\\private/M",
    "/public/%2e%2e%2fprivate/M",
    "//private/M", "/public//../private/M", "//public/../private/M", "/./private/M",
    "/public%2f..%2fprivate/M",
    "/%70ublic/../private/M", "/public/%00/../private/M", "/public/%c0%ae%c0%ae/private/M",
    "/public/%u002e%u002e/private/M", "/private/M?/public/", "/private/M#/public/", "/private/M;/public/",
]  # fmt: skip

_B10 = """
for target in targets:
    told[target] = reason(attempt(request, host, target.replace("M", mark)))
"""

_METHODS = """
for method in ("POST", "PUT", "DELETE", "TRACE", "get"):
    told[method] = reason(attempt(request, host, f"/{mark}", method=method))
for header in ("X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "x-method-override: PUT"):
    told[header] = reason(attempt(request, host, f"/{mark}", headers=header + "\\r\\n"))
"""

_PUSHES = [
    ("GET", "/M/r.git/info/refs?service=git-receive-pack"),
    ("GET", "/M/r.git/info/refs?x=1&service=git-receive-pack"),
    ("GET", "/M/r.git/info/refs?service=git-upload-pack&service=git-receive-pack"),
    ("GET", "/M/r.git/info/refs?service=git%2Dreceive%2Dpack"),
    ("GET", "/M/r.git/info/refs?%73ervice=git-receive-pack"),
    ("GET", "/M/r.git/info/refs?service=GIT-RECEIVE-PACK"),
    ("GET", "/M/r.git//info//refs?service=git-receive-pack"),
    ("GET", "/M/r.git/x/../info/refs?service=git-receive-pack"),
    ("POST", "/M/r.git/git-receive-pack"),
    ("POST", "/M/r.git/git%2dreceive%2dpack"),
    ("POST", "/M/r.git/GIT-RECEIVE-PACK"),
    ("POST", "/M/r.git/git-receive-pack;x=y"),
    ("PUT", "/M/r.git/git-receive-pack"),
]

_G4 = """
for method, target in pushes:
    for host in hosts:
        answer = attempt(request, host, target.replace("M", mark), method=method)
        told[f"{method} {host}{target}"] = reason(answer)
for host, port in ((hosts[0], 22), ("ssh.github.com", 443), (hosts[0], 9418)):
    def shell():
        sock, answer = connect(f"{host}:{port}")
        if b" 200 " not in answer:
            return rest(sock, answer)
        sock.sendall(f"SSH-2.0-{mark}\\r\\n".encode())
        return sock.recv(65536).decode("latin-1") or "closed"
    told[f"ssh {host}:{port}"] = reason(attempt(shell))
"""


def _led_astray(stage: Stage, told: dict[str, Any]) -> str:
    """Judge names at forbidden addresses by what was dialled; the script has asked for them already."""
    del told
    dialled = {seen.local[0] for seen in stage.outside.seen if "led-astray" in seen.target}
    return f"dialled: {', '.join(sorted(dialled))}" if dialled else ""


_ASTRAY = """
for number, address in enumerate(addresses):
    told[address] = reason(attempt(request, f"n{number}.astray.wild.test", f"/led-astray/{mark}"))
"""

_PATH = ("path_not_allowed", "path_ambiguous", "bad_request")
_METHOD = ("method_not_allowed", "method_override", "method_denied", "bad_request")
_PUSH = ("closed", "git_push_denied", "path_ambiguous", "host_not_allowed", "port_not_allowed")

CASES = (
    Case(
        id="B6",
        title="upgrade to another protocol, HTTP/2 out of the blue",
        expected="never agreed to",
        run=requests(_B6, wrong=through, host=ALLOWED),
    ),
    Case(
        id="B7",
        title="a redirect from an allowed host to another",
        expected="refused where it leads",
        run=requests(_B7, reasons=("host_not_allowed",), host=ALLOWED),
    ),
    Case(
        id="B8",
        title="an allowed name at 22 forbidden addresses",
        expected="never dialled",
        run=requests(_ASTRAY, wrong=_led_astray, needs_whole=True, addresses=_FORBIDDEN_ADDRESSES),
    ),
    Case(
        id="B8",
        title="addresses in odd spellings",
        expected="refused",
        run=requests(_B8_LITERALS, reasons=BAD_NAMES, literals=_LITERALS),
    ),
    Case(
        id="B9",
        title="a route's credential over plain HTTP",
        expected="never",
        run=requests(_B9, reasons=("plaintext_credential", "port_not_allowed", "bad_request"), api=API),
    ),
    Case(
        id="B10",
        title="29 readings of a path out of its prefix",
        expected="a path is open if every reading is",
        run=requests(_B10, reasons=_PATH, host=PATHS, targets=_OUTSIDE_THE_PREFIX),
    ),
    Case(
        id="B10",
        title="methods a route does not open, and overrides",
        expected="refused",
        run=requests(_METHODS, reasons=_METHOD, host=READ),
    ),
    Case(
        id="B16",
        title="endless lines, headers, and requests that never end",
        expected="refused; others are served",
        run=requests(_B16, wrong=through),
    ),
    Case(
        id="G4",
        title="git push over HTTP in 13 spellings to 3 hosts; ssh; git://",
        expected="refused on every host",
        run=requests(_G4, reasons=_PUSH, pushes=_PUSHES, hosts=[ALLOWED, API, FORBIDDEN]),
    ),
)

#: Names that the scripted resolver leads to forbidden addresses.
ASTRAY = {f"n{number}.astray.wild.test": address for number, address in enumerate(_FORBIDDEN_ADDRESSES)}
