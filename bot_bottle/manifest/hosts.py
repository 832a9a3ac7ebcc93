"""Host patterns of routes: one spelling for each host, and none that opens more than it seems to.

A pattern is a host name, ``*.`` and a host name, or an IP address. The spelling is that of
``egress.hosts.normalise_host``, so that egress compares plain text (attack list B1); what the operator wrote
in a form that another program would read differently is refused here with what to write instead.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from bot_bottle.egress.hosts import HostError, is_ip_literal, normalise_host
from bot_bottle.manifest.problem import shown
from bot_bottle.manifest.suffixes import shared_suffix


def parse_host_pattern(text: str) -> str:
    """Normalise one host pattern; raises ``ValueError`` with a sentence for anything else."""
    if not text:
        raise ValueError("is empty; write a host name such as api.example.com")
    _refuse_other_parts(text)
    if text.startswith("*"):
        return _wildcard(text)
    host = _normal(text)
    if is_ip_literal(host):
        _refuse_odd_address(text, host)
    return host


def parse_remote_host(text: str) -> str:
    """Normalise the one host of a git remote; raises ``ValueError`` with a sentence for anything else."""
    if text.startswith("*"):
        raise ValueError("a remote is one host; write its name in full")
    return parse_host_pattern(text)


def _refuse_other_parts(text: str) -> None:
    """Refuse what belongs to a URL or another notation, saying which key it belongs to instead."""
    if any(char.isspace() or not char.isprintable() for char in text):
        raise ValueError("holds a space or a control character; write the host name alone")
    if "://" in text:
        raise ValueError("holds a scheme; write the host name alone, without https://")
    if "@" in text:
        raise ValueError("holds a user part (@); write the host name alone")
    if "/" in text or "?" in text or "#" in text:
        raise ValueError("holds a path; write the host name alone and list paths under path_allowlist")
    if "%" in text or "\\" in text:
        raise ValueError("holds an escape; write the host name in plain letters")
    if text.startswith("["):
        raise ValueError("is in brackets; write the IPv6 address without them")
    if re.fullmatch(r"[^:]*:[0-9]*", text):
        raise ValueError("holds a port; write the host name alone and list ports under ports")


def _wildcard(text: str) -> str:
    rest = text.removeprefix("*.")
    if rest == text:
        raise ValueError("may use '*' only as its whole first label, as in *.example.com")
    name = _normal(rest)
    if is_ip_literal(name):
        raise ValueError("puts '*' before an IP address; list the addresses one by one")
    if "." not in name:
        raise ValueError(
            f"opens every name under .{shown(name)}; name the domain, as in *.example.{shown(name)}"
        )
    shared = shared_suffix(name)
    if shared:
        raise ValueError(
            f"opens names of many owners: anyone can get one under {shown(shared)}; list the hosts one by one"
        )
    return f"*.{name}"


def _normal(text: str) -> str:
    if "*" in text:
        raise ValueError("may use '*' only as its whole first label, as in *.example.com")
    try:
        return normalise_host(text)
    except HostError as error:
        raise ValueError(f"is no host name: {error}") from error


def _refuse_odd_address(text: str, host: str) -> None:
    mapped = getattr(ip_address(host), "ipv4_mapped", None)
    if mapped is not None:
        raise ValueError(f"is an IPv4 address in IPv6 form; write {mapped}")
    if text.lower() != host:
        raise ValueError(f"is an IP address in a form that programs read differently; write {host}")
