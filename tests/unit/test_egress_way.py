"""The order of addresses, the race between them, and what the operator may write of a proxy."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.egress.way import first_of, interleaved, proxy_for
from bot_bottle.errors import ManifestError, UsageError
from bot_bottle.operator_config import load_operator_config
from bot_bottle.sidecar.config import SidecarConfig, UpstreamProxy
from bot_bottle.upstream_proxy import with_password

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


@given(st.lists(st.sampled_from(["1.1.1.1", "2.2.2.2", "3.3.3.3", "1::1", "2::2"]), unique=True))
def test_families_alternate_from_the_first_one_on(addresses: list[str]) -> None:
    order = interleaved(addresses)
    assert sorted(order) == sorted(addresses)
    assert order[:1] == addresses[:1]
    for family in (":", "."):
        assert [one for one in order if family in one] == [one for one in addresses if family in one]
    fewer = min(sum(":" in one for one in addresses), sum("." in one for one in addresses))
    assert all((":" in one) != (":" in two) for one, two in itertools.pairwise(order[: 2 * fewer]))


def race(*attempts: Callable[[], Awaitable[str]], stagger: float = 0.0) -> tuple[str, list[str]]:
    discarded: list[str] = []

    async def run() -> str:
        won = await first_of(attempts, discard=discarded.append, stagger=stagger)
        for _ in range(5):
            await asyncio.sleep(0)
        return won

    return asyncio.run(run()), discarded


async def never() -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def fails() -> str:
    raise OSError("no")


def gives(text: str) -> Callable[[], Awaitable[str]]:
    async def attempt() -> str:
        return text

    return attempt


def test_a_race_is_won_by_the_first_that_comes_through() -> None:
    assert race(never, gives("b"), never) == ("b", [])
    assert race(fails, fails, gives("c"), stagger=60.0) == ("c", [])
    assert race(gives("a"), gives("b"), stagger=60.0) == ("a", [])


def test_what_comes_through_beside_the_winner_is_discarded() -> None:
    won, discarded = race(never, gives("b"), gives("c"), stagger=0.0)
    assert won == "b"
    assert set(discarded) <= {"c"}


def test_where_all_fail_the_last_failure_is_told() -> None:
    with pytest.raises(OSError, match="no"):
        race(fails, fails)
    with pytest.raises(Exception, match="no address"):
        race()


PROXY = UpstreamProxy(
    host="proxy.test", port=3128, bypass=("in.test", "*.corp.test", "10.0.0.0/8", "fd00::/8")
)


@pytest.mark.parametrize(
    ("host", "address", "used"),
    [
        ("a.test", "198.51.100.1", True),
        ("in.test", "198.51.100.1", False),
        ("x.in.test", "", True),
        ("x.corp.test", "", False),
        ("corp.test", "", True),
        ("a.test", "10.1.1.1", False),
        ("10.1.1.1", "", False),
        ("a.test", "fd00::1", False),
        ("a.test", "2001:db8::1", True),
    ],
)
def test_what_goes_without_the_proxy(host: str, address: str, used: bool) -> None:
    assert (proxy_for(PROXY, host, address) is PROXY) is used
    assert proxy_for(None, host, address) is None


def load(tmp_path: Path, text: str) -> UpstreamProxy | None:
    path = tmp_path / "config.toml"
    path.write_text(f"[egress]\n{text}\n")
    path.chmod(0o600)
    return load_operator_config(path).proxy


def test_a_proxy_is_read_and_its_password_is_never_in_the_file(tmp_path: Path) -> None:
    proxy = load(
        tmp_path,
        'proxy = "http://Proxy.Example.com:8080/"\nproxy_user = "me"\nproxy_password_ref = "PROXY_PW"\n'
        'no_proxy = ["*.corp.example", ".lab.example", "10.0.0.0/8"]',
    )
    assert proxy == UpstreamProxy(
        host="proxy.example.com",
        port=8080,
        user="me",
        password_ref="PROXY_PW",
        bypass=("*.corp.example", "*.lab.example", "10.0.0.0/8"),
    )
    assert "password in PROXY_PW" in proxy.shown
    with pytest.raises(UsageError, match="PROXY_PW"):
        with_password(proxy, {})
    whole = with_password(proxy, {"PROXY_PW": "hidden-7"})
    assert "hidden-7" not in repr(whole) + whole.shown
    sent = SidecarConfig(identity="a-1", routes=(), audit_path="", upstream_proxy=whole)
    assert SidecarConfig.from_wire(sent.to_wire()).upstream_proxy == whole
    assert sent.guarded()["PROXY_PW"].reveal() == "hidden-7"
    assert load(tmp_path, "") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('proxy = "https://p.example"', "plain HTTP only"),
        ('proxy = "socks5://p.example"', "plain HTTP only"),
        ('proxy = "http://me:hidden-7@p.example"', "proxy_password_ref"),
        ('proxy = "http://p.example/path"', "more than a host and a port"),
        ('proxy = "http://p.example:99999"', "no URL of a proxy"),
        ('proxy = "p.example:3128"', "egress.proxy: "),
        ('proxy = "http://p.example"\nproxy_user = "a:b"', "no user's name"),
        ('proxy = "http://p.example"\nproxy_password_ref = "PW"', "goes with proxy_user"),
        (
            'proxy = "http://p.example"\nproxy_user = "me"\nproxy_password_ref = "hidden-7!"',
            "name of a host variable",
        ),
        ('proxy = "http://p.example"\nno_proxy = ["10.0.0.1/8"]', "no network"),
        ('proxy = "http://p.example"\nno_proxy = ["a b"]', "is no host"),
        ('proxy = "http://p.example"\nno_proxy = "a"', "must be a list"),
        ('proxy = "http://p.example"\nproxy_resolves = "yes"', "true or false"),
        ('proxy_user = "me"', "goes with proxy"),
        ('proxi = "http://p.example"', "did you mean proxy"),
    ],
)
def test_mistakes_get_a_sentence_and_no_password(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ManifestError, match=r"config\.toml: egress") as raised:
        load(tmp_path, text)
    assert words in str(raised.value)
    assert "hidden-7" not in str(raised.value)
