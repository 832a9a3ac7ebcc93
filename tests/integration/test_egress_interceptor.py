"""The interceptor of a real sidecar: the same egress behind it, and nothing for who has no token."""

from __future__ import annotations

import errno
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bot_bottle.errors import LaunchError
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import Interception
from tests.integration.egress_lab import SECONDS, TOKEN, Sidecar, Stream, Upstream, config, ok, route, serve
from tests.support.family import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bot_bottle.sidecar.config import SidecarConfig

pytestmark = pytest.mark.integration

KEY = bytes(range(1, 33))
HERE = "198.51.100.1"


class Machine:
    """What a machine's engine does: open a flow, read the one byte, be the guest from then on."""

    def __init__(self, sidecar: Sidecar, port: int) -> None:
        self.sidecar = sidecar
        self.port = port

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), SECONDS)

    def flow(self, port: int, *, token: bytes = KEY, address: str = HERE) -> tuple[socket.socket, int]:
        """Open a flow; gives the connection and the verdict, -1 for none."""
        sock = self.dial()
        try:
            sock.sendall(preamble(port, token=token, address=address))
            return sock, verdict(sock)
        except OSError:
            sock.close()
            raise

    def open(self, port: int) -> socket.socket:
        sock, said = self.flow(port)
        if said != 0:
            sock.close()
        assert said == 0
        return sock

    def strangers(self) -> list[object]:
        return [record["reason"] for record in self.sidecar.records("interceptor")]


def preamble(port: int, *, token: bytes = KEY, address: str = HERE) -> bytes:
    return b"SMOLICPT\x01" + token + b"\x04" + port.to_bytes(2, "big") + socket.inet_aton(address)


def verdict(sock: socket.socket) -> int:
    said = sock.recv(1)
    return said[0] if said else -1


def ended(sock: socket.socket) -> bool:
    """Wait for the end of a connection that must not say another byte."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@contextmanager
def machine(tmp_path: Path, settings: SidecarConfig) -> Iterator[Machine]:
    settings = type(settings).from_wire(settings.to_wire())
    object.__setattr__(settings, "interception", Interception(token=Secret(KEY.hex()), address=HERE))
    with Sidecar(tmp_path, settings) as sidecar, socket.create_server(("127.0.0.1", 0)) as listener:
        sidecar.process.give_listeners([("interceptor", listener)])
        port = listener.getsockname()[1]
        listener.close()  # as a launcher does: only the sidecar listens
        yield Machine(sidecar, port)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[Machine, list[bytes]]]:
    """Bring up a sidecar with an interceptor and one upstream."""
    handler, heads = serve(lambda head, body: ok(head.split(b"\r\n")[0] + b"|" + body))
    with Upstream(handler) as upstream:
        pins = dict.fromkeys(("api.test", "other.test"), upstream.pin)
        with machine(tmp_path, config(tmp_path, [route("api.test", auth=True)], pins=pins)) as guest:
            yield guest, heads


def test_the_same_egress_stands_behind_every_port(lab: tuple[Machine, list[bytes]]) -> None:
    guest, heads = lab
    with guest.sidecar.secure(guest.open(443), "api.test") as stream:
        assert stream.get("api.test", "/one").body == b"GET /one HTTP/1.1|"
        assert stream.get("api.test", "/two").body == b"GET /two HTTP/1.1|"
    assert heads[0].lower().count(b"authorization: bearer " + TOKEN.encode()) == 1
    stream = Stream(guest.open(9099))
    stream.send(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n")
    assert stream.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    with guest.sidecar.secure(stream.sock, "api.test") as inner:
        assert inner.get("api.test", "/three").body == b"GET /three HTTP/1.1|"
    with Stream(guest.open(80)) as plain:
        refused = plain.get("elsewhere.test")
    assert refused.status == 403
    seen = [(record["decision"], record["host"], record["via"]) for record in guest.sidecar.records()]
    assert seen == [
        ("allow", "api.test", "transparent"),
        ("allow", "api.test", "transparent"),
        ("allow", "api.test", "connect"),
        ("deny", "elsewhere.test", "transparent"),
    ]


def test_dns_over_tcp_names_the_one_address_for_any_name(lab: tuple[Machine, list[bytes]]) -> None:
    guest, _ = lab
    with Stream(guest.open(53)) as stream:
        query = b"\xbe\xef\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06secret\x04test\x00\x00\x01\x00\x01"
        stream.send(len(query).to_bytes(2, "big") + query)
        reply = stream.exactly(int.from_bytes(stream.exactly(2), "big"))
    assert reply.endswith(socket.inet_aton(HERE))
    assert [record["name"] for record in guest.sidecar.records("dns")] == ["secret.test"]


def test_a_flow_that_is_kept_waiting_gets_every_byte(lab: tuple[Machine, list[bytes]]) -> None:
    """What a guest sends right behind the verdict belongs to the flow, none of it to the preamble."""
    guest, _ = lab
    sock = guest.dial()
    for byte in preamble(80):
        sock.sendall(bytes([byte]))
    assert verdict(sock) == 0
    with Stream(sock) as stream:
        assert stream.get("_egress.local", "/allowlist").status == 200


@pytest.mark.parametrize(
    ("address", "port"),
    [(HERE, 22), (HERE, 8443), ("127.0.0.1", 9099), ("169.254.169.254", 80), ("100.96.0.1", 443)],
)
def test_no_other_place_is_reached_and_the_try_is_on_record(
    lab: tuple[Machine, list[bytes]], address: str, port: int
) -> None:
    guest, heads = lab
    sock, said = guest.flow(port, address=address)
    with sock:
        assert said == errno.ECONNREFUSED
        assert ended(sock)
    (record,) = guest.sidecar.records()
    assert (record["decision"], record["reason"], record["host"], record["port"]) == (
        "deny",
        "no_route",
        address,
        port,
    )
    assert heads == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (preamble(9099, token=bytes(32)), "wrong_token"),
        (preamble(9099, token=KEY[:-1] + b"\0"), "wrong_token"),
        (b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n", "not_an_engine"),
        (b"SMOLMEG2" + preamble(9099)[8:], "not_an_engine"),
        (b"SMOLICPT\x02" + preamble(9099)[9:], "unknown_protocol"),
    ],
)
def test_who_has_no_token_gets_a_byte_and_no_service(
    lab: tuple[Machine, list[bytes]], data: bytes, reason: str
) -> None:
    guest, _ = lab
    with guest.dial() as sock:
        sock.sendall(data)
        assert verdict(sock) == errno.EACCES
        assert ended(sock)
    assert guest.strangers() == [reason]
    assert guest.sidecar.records() == []


def test_a_preamble_that_does_not_come_is_waited_for_only_so_long(lab: tuple[Machine, list[bytes]]) -> None:
    guest, _ = lab
    with guest.dial() as silent, guest.dial() as cut, guest.dial() as partial:
        cut.sendall(preamble(80)[:20])
        cut.shutdown(socket.SHUT_WR)
        assert verdict(cut) == errno.EACCES
        partial.sendall(preamble(80)[:-1])
        assert [verdict(silent), verdict(partial)] == [errno.EACCES] * 2
        assert ended(silent)
        assert ended(partial)
    assert guest.strangers() == ["preamble_cut", "preamble_timeout", "preamble_timeout"]


def test_strangers_fill_neither_the_door_nor_the_log(lab: tuple[Machine, list[bytes]]) -> None:
    guest, _ = lab
    for _ in range(300):
        with guest.dial() as sock:
            sock.sendall(b"x" * 42)
            verdict(sock)
    assert len(guest.strangers()) == 200
    assert guest.sidecar.records("interceptor")[-1]["message"] == "further ones are not listed"
    waiting = [guest.dial() for _ in range(300)]
    # Those beyond the bound are closed at once; the others have their time.
    assert any(ended(sock) for sock in waiting[256:])
    for sock in waiting:
        sock.close()

    def served() -> bool:
        try:
            with guest.sidecar.secure(guest.open(443), "api.test") as stream:
                return bool(stream.get("api.test").status == 200)
        except (OSError, AssertionError):
            return False  # the sidecar has not heard yet that the others are gone

    wait_until(served, "no room was made after the strangers had gone")


def test_an_interceptor_without_a_token_is_not_served(tmp_path: Path) -> None:
    with (
        Sidecar(tmp_path, config(tmp_path, [])) as sidecar,
        socket.create_server(("127.0.0.1", 0)) as sock,
        pytest.raises(LaunchError, match="no token"),
    ):
        sidecar.process.give_listeners([("interceptor", sock)])


def test_with_the_sidecar_gone_no_flow_is_answered(tmp_path: Path) -> None:
    with machine(tmp_path, config(tmp_path, [])) as guest:
        sock = guest.open(9099)
        guest.sidecar.process.close()
        assert ended(sock)
        sock.close()
        with pytest.raises(ConnectionRefusedError):
            guest.dial()
