"""The harness itself: what the attack suite calls "reached the outside" really is seen there.

Were one of these to fail silently, every attack would seem to be held.
"""

from __future__ import annotations

import os
import select

import pytest

from tests.support.family import wait_until
from tests.support.outside import BASE_PYTHON, Account, World, new_marker

pytestmark = pytest.mark.integration


def test_what_a_test_left_running_ends_in_order_with_the_world() -> None:
    """As a detached launcher does: in a session of its own, whose parent has gone."""
    own = World()
    try:
        place = own.folder / "said"
        script = (
            f"exec </dev/null >{place} 2>&1; trap 'echo in order; exit' TERM; echo $$;"
            "while :; do sleep 0.05; done"
        )
        assert own.run(["setsid", "--fork", "sh", "-c", script]).returncode == 0
        wait_until(lambda: place.exists() and place.read_text().endswith("\n"), "it runs")
        stray = os.pidfd_open(int(place.read_text()))
        said = os.open(place, os.O_RDONLY)
    finally:
        own.close()
    try:
        assert select.select([stray], [], [], 0)[0], "it outlives the world"
        assert os.read(said, 100).endswith(b"in order\n")
    finally:
        os.close(stray)
        os.close(said)


def test_a_tls_request_to_any_name_is_recorded_with_its_bytes(world: World, account: Account) -> None:
    marker = new_marker("control")
    result = world.run(
        ["curl", "-sS", "-H", f"X-Mark: {marker}", "-d", f"body={marker}", f"https://{marker}.example.org/"],
        account=account,
    )
    assert result.returncode == 0, result.err
    (seen,) = [seen for seen in world.records().requests if marker in seen.sni]
    assert seen.local == ("93.184.215.14", 443)
    assert seen.tls
    assert seen.values("x-mark") == [marker]
    assert seen.body == f"body={marker}".encode()


def test_a_name_look_up_is_recorded_even_if_nothing_follows(world: World) -> None:
    marker = new_marker("control")
    world.run([BASE_PYTHON, "-c", f"import socket; socket.gethostbyname('{marker}.example.org')"])
    assert any("DNS question" in place for place in world.reached(marker))


@pytest.mark.parametrize("port", [443, 853, 9999])
@pytest.mark.parametrize(("family", "address"), [("AF_INET", "203.0.113.9"), ("AF_INET6", "2606:4700::1111")])
def test_a_datagram_to_any_address_is_recorded(world: World, family: str, address: str, port: int) -> None:
    marker = new_marker("control")
    code = (
        f"import socket; s = socket.socket(socket.{family}, socket.SOCK_DGRAM);"
        f"s.sendto(b'{marker}', ('{address}', {port}))"
    )
    assert world.run([BASE_PYTHON, "-c", code]).returncode == 0
    assert world.reached(marker) == [f"datagram to {address}:{port}"]
    assert world.records().packets_to(address)


@pytest.mark.parametrize("address", ["203.0.113.77", "2606:4700::7777"])
def test_bytes_that_are_no_http_are_recorded(world: World, address: str) -> None:
    marker = new_marker("control")
    code = (
        f"import socket; s = socket.create_connection(('{address}', 22), 5);"
        f"s.sendall(b'SSH-2.0-{marker}\\r\\n'); s.shutdown(1); s.recv(1)"
    )
    assert world.run([BASE_PYTHON, "-c", code]).returncode == 0
    assert world.reached(marker)
    assert (address, 22) in world.records().accepted


def test_scripted_dns_answers_change_from_one_look_up_to_the_next(world: World) -> None:
    name = f"{new_marker('control')}.example.org"
    world.call("dns", name=name, answers=[["198.51.100.1"], ["198.51.100.2"]])
    code = f"import socket; print(socket.gethostbyname('{name}'), socket.gethostbyname('{name}'))"
    assert world.run([BASE_PYTHON, "-c", code]).out.split() == ["198.51.100.1", "198.51.100.2"]
