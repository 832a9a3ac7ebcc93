"""Single values: hosts, paths, methods, ports, networks, names, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.egress.hosts import normalise_host
from bot_bottle.manifest import values
from bot_bottle.manifest.hosts import parse_host_pattern
from bot_bottle.manifest.problem import key_text

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("example.com", "example.com"),
        ("API.Example.COM.", "api.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("*.Example.com", "*.example.com"),
        ("gitea", "gitea"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("*.a.co.uk", "*.a.co.uk"),
        ("my_host.example", "my_host.example"),
    ],
)
def test_hosts_have_one_spelling(text: str, normal: str) -> None:
    assert parse_host_pattern(text) == normal


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("https://example.com", "scheme"),
        ("example.com:443", "holds a port"),
        ("example.com:", "holds a port"),
        ("example.com/v1", "holds a path"),
        ("example.com?x", "holds a path"),
        ("good.example@evil.example", "user part"),
        ("exa%6dple.com", "escape"),
        ("exam ple.com", "space or a control character"),
        ("example.com\0.evil.example", "control character"),
        ("a..b", "no host name"),
        (".", "no host name"),
        ("-a.example", "no host name"),
        ("a" * 64 + ".example", "no host name"),
        ("faß.example", "xn--"),
        ("*", "whole first label"),
        ("**.example.com", "whole first label"),
        ("*example.com", "whole first label"),
        ("a.*.example.com", "whole first label"),
        ("*.*.example.com", "whole first label"),
        ("*.com", "every name under .com"),
        ("*.com.", "every name under .com"),
        ("*.co.uk", "many owners"),
        ("*.github.io", "many owners"),
        ("*.10.0.0.1", "before an IP address"),
        ("127.1", "write 127.0.0.1"),
        ("0x7f.0.0.1", "write 127.0.0.1"),
        ("2130706433", "write 127.0.0.1"),
        ("0177.0.0.1", "write 127.0.0.1"),
        ("1.2.3.4.5", "no host name"),
        ("[::1]", "brackets"),
        ("fe80::1%eth0", "escape"),
        ("::ffff:10.0.0.1", "write 10.0.0.1"),
        ("2001:0db8::1", "write 2001:db8::1"),
        (":::1", "no host name"),
    ],
)
def test_hosts_that_could_mean_two_things_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        parse_host_pattern(text)


@given(st.text(max_size=80))
def test_an_accepted_host_is_its_own_normal_form(text: str) -> None:
    try:
        host = parse_host_pattern(text)
    except ValueError:
        return
    assert parse_host_pattern(host) == host
    assert normalise_host(host.removeprefix("*.")) == host.removeprefix("*.")


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (values.path_prefix, "/"),
        (values.path_prefix, "/v1/messages"),
        (values.path_prefix, "/@scope/pkg/~user/a.b,c"),
        (values.http_method, "PROPFIND"),
        (values.http_method, "M-SEARCH"),
        (values.network, "10.1.2.0/24"),
        (values.network, "2001:db8::/32"),
        (values.env_name, "_a1"),
        (values.token_name, "GITEA_TOKEN"),
        (values.auth_scheme, "token"),
        (values.name_reference, "a-1"),
    ],
)
def test_good_values_pass_as_they_are(check: Callable[[str], str], text: str) -> None:
    assert check(text) == text


@pytest.mark.parametrize(
    ("check", "text", "said"),
    [
        (values.path_prefix, "v1", "absolute"),
        (values.path_prefix, "", "absolute"),
        (values.path_prefix, "/a?b", "query"),
        (values.path_prefix, "/a#b", "query"),
        (values.path_prefix, "/a/../b", "segment"),
        (values.path_prefix, "/a/.", "segment"),
        (values.path_prefix, "/a//b", "empty segment"),
        (values.path_prefix, "/a%2e%2e/b", "escape"),
        (values.path_prefix, "/a;x", "escape"),
        (values.path_prefix, "/a\\b", "escape"),
        (values.path_prefix, "/ä", "escape"),
        (values.path_prefix, "/a b", "escape"),
        (values.http_method, "get", "capitals"),
        (values.http_method, "CONNECT", "never forwarded"),
        (values.network, "10.1.2.3/24", "write 10.1.2.0/24"),
        (values.network, "private", "no IP network"),
        (values.env_name, "A-B", "variable name"),
        (values.env_name, "1A", "variable name"),
        (values.env_value, "a\0b", "NUL"),
        (values.auth_scheme, "Digest", "header or query"),
        (values.auth_scheme, "bearer", "header or query"),
        (values.name_reference, "../x", "no name"),
        (values.memory_text, "4", "KiB, MiB or GiB"),
        (values.memory_text, "4GB", "KiB, MiB or GiB"),
        (values.memory_text, "9" * 400 + "GiB", "KiB, MiB or GiB"),
        (values.memory_text, "999999999TiB", "more than any machine"),
        (values.memory_text, "1KiB", "too little"),
        (values.text_without_nul, "\0", "NUL"),
    ],
)
def test_bad_values_get_a_sentence(check: Callable[[str], str], text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(text)


def test_a_credential_in_the_place_of_a_name_is_never_repeated() -> None:
    with pytest.raises(ValueError, match="never the credential itself") as caught:
        values.token_name("sk-ant-oat01-realsecret")
    assert "realsecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("4GiB", 4 << 30), ("512 MiB", 512 << 20), ("1.5GiB", 3 << 29), ("65536KiB", 64 << 20)],
)
def test_memory_is_read_in_binary_units(text: str, amount: int) -> None:
    assert values.memory_bytes(text) == amount


@pytest.mark.parametrize("number", [0, -1, 65536])
def test_ports_have_sixteen_bits(number: int) -> None:
    with pytest.raises(ValueError, match="1 to 65535"):
        values.port(number)


@pytest.mark.parametrize(
    "text",
    [
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "github_pat_11ABCDEFG0123456789_abc",
        "AKIAIOSFODNN7EXAMPLE",
        "npm_abcdefghijklmnopqrstuvwxyz0123456789",
        "Zx81kQp04LmNv72RtYw55HsJd93BfGc60",
        "sk-ant-oat01-abc",
    ],
)
def test_a_credential_in_place_of_its_name_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="never the credential itself") as caught:
        values.token_name(text)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["GITHUB_TOKEN", "ghToken", "BOT_BOTTLE_CLAUDE_OAUTH_TOKEN", "HF_TOKEN", "T2"]
)
def test_names_of_variables_are_taken(text: str) -> None:
    assert values.token_name(text) == text


def test_a_credential_in_the_wrong_place_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="no known scheme") as caught:
        values.auth_scheme("Bearer sk-SECRET12345")
    assert "sk-SECRET" not in str(caught.value)
    assert "sk-secret" not in key_text(("env", "API_KEY=sk-secret-value"))
