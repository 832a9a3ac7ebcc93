"""Every guarded value, in every form, at every place: found; and nothing else is."""

from __future__ import annotations

import base64
import gzip
import io
import json
import string
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.pipelock.finding import Context, Finding
from bot_bottle.pipelock.host_labels import judge_host
from bot_bottle.pipelock.own_secrets import OwnSecrets
from bot_bottle.pipelock.request import RequestScanner
from bot_bottle.pipelock.selection import Selection
from bot_bottle.pipelock.session import Session
from bot_bottle.pipelock.stream import StreamScanner
from bot_bottle.secret import Secret
from tests.support.pipelock import AT_START, CODINGS, FORMS, SECRETS, judge_message, own_secrets, scanner

if TYPE_CHECKING:
    from collections.abc import Callable

OWN = own_secrets()
SCANNER = scanner(own=OWN)
#: Content rules off, as for a model's host: the guarded values are looked for all the same.
REQUESTS = RequestScanner(SCANNER)
OWN_ALONE = Selection(rules=False)
TOKEN = set((string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode())


def _printable(data: bytes) -> bytes:
    """Write bytes as they can stand in a URL or a header."""
    return data if all(32 <= byte < 127 for byte in data) else quote_from_bytes(data, safe="").encode()


def _url_safe(data: bytes) -> bytes:
    return (
        data
        if not set(data) & set(b' #?&"<>') and _printable(data) == data
        else quote_from_bytes(data).encode()
    )


def _head(
    path: bytes = b"/", query: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()
) -> tuple[Finding, ...]:
    usual = ((b"User-Agent", b"curl/8.5.0"), (b"Accept", b"*/*"))
    return REQUESTS.scan(
        method=b"GET", path=path, query=query, headers=(*usual, *headers), selection=OWN_ALONE
    )


def _body(data: bytes, content_type: str, encoding: str = "") -> tuple[Finding, ...]:
    context = Context(content_type=content_type, encoding=encoding, rules=False)
    stream = StreamScanner(SCANNER, context, on_opaque="allow")
    step = stream.feed(data)
    assert step.release == b""
    last = stream.finish()
    assert last.refusals or last.release == data
    return last.refusals


def _json(data: bytes) -> bytes:
    """Put bytes into a JSON string, escapes of theirs as they are."""
    try:
        text = data.decode()
    except UnicodeDecodeError:  # bytes do not stand in JSON as they are
        text = base64.b64encode(data).decode()
    inner = text.replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n")
    return b'{"model": "x", "nested": [{"text": "' + inner.encode("utf-8") + b'"}], "stream": true}'


def _multipart(data: bytes) -> bytes:
    return (
        b'--b0und\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue\r\n--b0und\r\n'
        b'Content-Disposition: form-data; name="file"; filename="notes.txt"\r\n'
        b"Content-Type: application/octet-stream"
        b"\r\n\r\n" + data + b"\r\n--b0und--\r\n"
    )


def _message(data: bytes) -> tuple[Finding, ...]:
    return judge_message(SCANNER, Session(OWN), data, text=False, selection=OWN_ALONE)


PLACES: dict[str, Callable[[bytes], tuple[Finding, ...]]] = {
    "path": lambda v: _head(path=b"/v1/" + _url_safe(v) + b"/list"),
    "query": lambda v: _head(path=b"/search", query=b"q=" + _url_safe(v) + b"&page=2"),
    "header value": lambda v: _head(headers=((b"X-Trace", _printable(v)),)),
    "bearer": lambda v: _head(headers=((b"Authorization", b"Bearer " + _printable(v)),)),
    "basic": lambda v: _head(headers=((b"Authorization", b"Basic " + base64.b64encode(b"user:" + v)),)),
    "cookie": lambda v: _head(headers=((b"Cookie", b"theme=dark; s=" + _printable(v)),)),
    "text": lambda v: _body(b"line one\n" + v + b"\nline three\n", "text/plain"),
    "JSON": lambda v: _body(_json(v), "application/json"),
    "form": lambda v: _body(
        b"a=1&b=" + quote_from_bytes(v).encode() + b"&c=3", "application/x-www-form-urlencoded"
    ),
    "multipart": lambda v: _body(_multipart(v), "multipart/form-data; boundary=b0und"),
    "YAML": lambda v: _body(b"config:\n  key: " + v + b"\n", "application/yaml"),
    "CSV": lambda v: _body(b"id,name\n1," + v + b"\n", "text/csv"),
    "binary": lambda v: _body(bytes(range(256)) + v + bytes(range(256)), "application/octet-stream"),
    "gzip body": lambda v: _body(gzip.compress(v), "application/octet-stream", "gzip"),
    "trailer": lambda v: SCANNER.scan(b"X-Sum: " + _printable(v), Context(place="trailer", rules=False)),
    "WebSocket": _message,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
def test_every_secret_in_every_form_at_every_place(form: str, place: str) -> None:
    missed = []
    for name, value in SECRETS.items():
        written = FORMS[form](value.encode())
        if form in AT_START and place != "gzip body":
            written = base64.b64encode(written)
        found = PLACES[place](written)
        if not any(entry.kind == "own_secret" for entry in found):
            missed.append(name)
        assert not any(value in str(entry) + entry.message + repr(entry) for entry in found)
    assert missed == []


@pytest.mark.parametrize("name", SECRETS)
def test_in_the_name_of_a_header(name: str) -> None:
    value = SECRETS[name].encode()
    for form in ("raw", "hex", "base32", "base64, URL alphabet", "hex, dashes", "percent"):
        written = FORMS[form](value).rstrip(b"=")
        header = b"X-" + bytes(byte for byte in written if byte in TOKEN)
        assert any(found.kind == "own_secret" for found in _head(headers=((header, b"1"),)))
        assert all(value not in str(found).encode() for found in _head(headers=((header, b"1"),)))


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("form", ["raw", "hex", "base32", "base64, URL alphabet", "base64, one byte in"])
def test_in_the_labels_of_a_host(name: str, form: str) -> None:
    written = FORMS[form](SECRETS[name].encode()).decode().rstrip("=").lower()
    written = "".join(char if char.isalnum() else "-" for char in written)
    for size in (63, 20, 9):
        labels = ".".join(written[at : at + size] for at in range(0, len(written), size))
        for host, zone in ((f"{labels}.evil.test", ""), (f"a.{labels}.cdn.example.com", "*.cdn.example.com")):
            found = judge_host(host, OWN, zone=zone)
            assert found is not None
            assert found.kind == "own_secret"
            assert found.where.place == "host"


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("name", SECRETS)
def test_under_every_content_coding(coding: str, name: str) -> None:
    packed = CODINGS[coding](json.dumps({"v": SECRETS[name], "pad": "abc" * 500}).encode())
    assert _body(packed, "application/json", coding)


def _cut(value: str, size: int) -> list[str]:
    return [value[at : at + size] for at in range(0, len(value), size)]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("size", [5, 8, 13, 20])
class TestDivided:
    """Cut into parts of ``size``: over the fields of one request, over requests, over messages."""

    def test_over_query_parameters(self, name: str, size: int) -> None:
        query = "&".join(
            f"p{i}={quote_from_bytes(part.encode(), safe='')}"
            for i, part in enumerate(_cut(SECRETS[name], size))
        )
        assert _head(query=query.encode())

    def test_over_headers(self, name: str, size: int) -> None:
        headers = tuple((b"X-Part-%d" % i, part.encode()) for i, part in enumerate(_cut(SECRETS[name], size)))
        assert _head(headers=headers)

    def test_over_json_fields(self, name: str, size: int) -> None:
        fields = {f"field{i}": part for i, part in enumerate(_cut(SECRETS[name], size))}
        assert _body(json.dumps({"note": "hello", "data": fields}).encode(), "application/json")

    def test_over_form_fields(self, name: str, size: int) -> None:
        pairs = [
            f"f{i}={quote_from_bytes(part.encode(), safe='')}"
            for i, part in enumerate(_cut(SECRETS[name], size))
        ]
        assert _body("&".join(pairs).encode(), "application/x-www-form-urlencoded")

    def test_over_multipart_parts(self, name: str, size: int) -> None:
        parts = io.BytesIO()
        for index, part in enumerate(_cut(SECRETS[name], size)):
            parts.write(
                b'--b\r\nContent-Disposition: form-data; name="n%d"\r\n\r\n%b\r\n' % (index, part.encode())
            )
        assert _body(parts.getvalue() + b"--b--\r\n", "multipart/form-data; boundary=b")

    def test_over_requests_in_one_parameter(self, name: str, size: int) -> None:
        session = Session(OWN)
        found: list[Finding] = []
        for index, part in enumerate(_cut(SECRETS[name], size)):
            query = f"seq={index}&d={quote_from_bytes(part.encode(), safe='')}".encode()
            found += session.request(
                path=b"/collect", query=query, headers=((b"Host", b"x"), (b"Accept", b"*/*"))
            )
        assert found
        assert all(entry.kind == "own_secret" for entry in found)

    def test_over_requests_in_the_path(self, name: str, size: int) -> None:
        session = Session(OWN)
        found: list[Finding] = []
        for part in _cut(SECRETS[name], size):
            path = b"/files/" + quote_from_bytes(part.encode(), safe="").encode() + b"/raw"
            found += session.request(path=path, query=b"", headers=())
        assert found

    def test_over_requests_in_a_header(self, name: str, size: int) -> None:
        session = Session(OWN)
        found: list[Finding] = []
        for part in _cut(SECRETS[name], size):
            found += session.request(
                path=b"/", query=b"", headers=((b"X-Id", part.encode()), (b"Accept", b"*/*"))
            )
        assert found

    def test_over_requests_in_base64(self, name: str, size: int) -> None:
        session = Session(OWN)
        found: list[Finding] = []
        for part in _cut(base64.urlsafe_b64encode(SECRETS[name].encode()).decode(), size):
            found += session.request(path=b"/a/" + part.encode(), query=b"", headers=())
        assert found

    def test_over_bodies(self, name: str, size: int) -> None:
        session = Session(OWN)
        found: list[Finding] = []
        for index, part in enumerate(_cut(SECRETS[name], size)):
            found += session.body(json.dumps({"n": index, "chunk": part}).encode(), "application/json")
        assert found

    def test_over_websocket_messages(self, name: str, size: int) -> None:
        for dress in (lambda part: part, lambda part: json.dumps({"type": "log", "text": part})):
            session = Session(OWN)
            found: list[Finding] = []
            for part in _cut(SECRETS[name], size):
                found += judge_message(SCANNER, session, dress(part).encode(), selection=OWN_ALONE)
            assert found


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_in_tiny_parts_in_order(name: str, size: int) -> None:
    parts = _cut(SECRETS[name], size)
    query = "&".join(
        f"{chr(97 + i % 26)}={quote_from_bytes(p.encode(), safe='')}" for i, p in enumerate(parts)
    )
    assert _head(query=query.encode())
    session = Session(OWN)
    found = [
        session.request(
            path=b"/p", query=b"d=" + quote_from_bytes(part.encode(), safe="").encode(), headers=()
        )
        for part in parts
    ]
    assert any(found)


def test_a_whole_key_file_is_known_by_any_of_its_lines() -> None:
    lines = [
        base64.b64encode(bytes((i * 37 + j * 91 + 13 * i * j) % 256 for j in range(48))).decode()
        for i in range(20)
    ]
    key = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(lines) + "\n-----END PRIVATE KEY-----\n"
    own = own_secrets({"KEY": key})
    assert all(own.search(line.encode()) for line in lines)
    assert own.search(base64.b64encode(lines[7].encode()))
    assert own.search(b"-----BEGIN PRIVATE KEY-----\nnothing of it\n-----END PRIVATE KEY-----") is None


def test_the_secret_parts_of_a_structured_value_are_known_alone() -> None:
    value = json.dumps(
        {"access_token": SECRETS["PREFIXED"], "token_type": "Bearer", "scope": "openid profile email"}
    )
    own = own_secrets({"AUTH": value})
    assert own.search(SECRETS["PREFIXED"].encode())
    assert (
        own.search(b'{"token_type": "Bearer", "scope": "openid profile email", "expires_in": 3600}') is None
    )


def test_values_too_short_to_be_found_are_told() -> None:
    own = own_secrets({"PIN": "1234", "EMPTY": "", "OK": "correct-horse-7"})
    assert own.unsearchable == ("PIN", "EMPTY")
    assert own.search(b"my pin is 1234") is None
    assert own.search(b"it is correct-horse-7!")


def test_without_values_nothing_is_searched() -> None:
    own = OwnSecrets({})
    assert not own
    assert own.search(b"anything") is None
    assert Session(own).request(path=b"/a", query=b"b=c", headers=()) == ()


def test_a_value_of_punctuation_is_found_as_it_is() -> None:
    assert own_secrets({"ODD": "!$%&/()=?{[]}"}).search(b"x !$%&/()=?{[]} y")


@given(st.binary(max_size=4096))
def test_no_value_is_found_in_what_does_not_hold_it(data: bytes) -> None:
    assert OWN.search(data) is None


@given(
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.sampled_from(sorted(SECRETS)),
    st.sampled_from(sorted(FORMS)),
)
def test_found_whatever_stands_around(before: bytes, after: bytes, name: str, form: str) -> None:
    if form in AT_START:
        before = b""
    data = before + b"\n" + FORMS[form](SECRETS[name].encode()) + b"\n" + after
    if form in AT_START:
        data = data[1:]
    found = SCANNER.scan(data, Context(rules=False))
    assert any(entry.kind == "own_secret" for entry in found)


def test_nothing_shows_the_values() -> None:
    assert all(value not in repr(OWN) for value in SECRETS.values())
    assert "Secret(***)" in repr(Secret(SECRETS["HEX"]))
