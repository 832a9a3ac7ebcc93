"""Host patterns of routes: one spelling for each host, and none that opens more than it seems to.

A pattern is a host name, ``*.`` and a host name, or an IP address. The result is lower case, without a
trailing dot, in A-labels, so that egress compares plain text (attack list B1).
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

from bot_bottle.manifest.problem import shown
from bot_bottle.manifest.suffixes import is_shared_suffix

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

#: Letters that IDNA 2003 and IDNA 2008 map to different names (UTS 46, section 7); we refuse to choose.
_DEVIATIONS = frozenset("ßς\u200c\u200d")


def parse_host_pattern(text: str) -> str:
    """Normalise one host pattern; raises ``ValueError`` with a sentence for anything else."""
    if not text:
        raise ValueError("is empty; write a host name such as api.example.com")
    _refuse_other_parts(text)
    if text.startswith("*"):
        return _wildcard(text)
    if ":" in text:
        return _ipv6(text)
    name = _normal_name(text)
    last = name.rpartition(".")[2]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        return _ipv4(text)
    return name


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
    if rest == text or "*" in rest:
        raise ValueError("may use '*' only as its first label, as in *.example.com")
    name = _normal_name(rest)
    labels = name.split(".")
    if labels[-1].isdigit():
        raise ValueError("puts '*' before an IP address; list the addresses one by one")
    if len(labels) < 2:
        raise ValueError(
            f"opens every name under .{shown(name)}; name the domain, as in *.example.{shown(name)}"
        )
    if is_shared_suffix(name):
        raise ValueError(
            f"opens names of many owners: anyone can get one under {shown(name)}; list the hosts one by one"
        )
    return f"*.{name}"


def _normal_name(text: str) -> str:
    if "*" in text:
        raise ValueError("may use '*' only as its first label, as in *.example.com")
    name = _a_labels(text).lower()
    name = name.removesuffix(".")
    if len(name) > 253:
        raise ValueError("is longer than a host name may be (253 characters)")
    for label in name.split("."):
        if not label:
            raise ValueError("has an empty label; write one dot between labels")
        if not _LABEL.fullmatch(label):
            raise ValueError(
                f"has a label that no host name has ({shown(label)!r}); use letters, digits and inner hyphens"
            )
    return name


def _a_labels(text: str) -> str:
    if text.isascii():
        return text
    if _DEVIATIONS & set(text.lower()):
        raise ValueError("holds a letter that two IDNA versions read differently; write the xn-- form")
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError("is not a valid international host name; write the xn-- form") from error


def _ipv4(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise ValueError(
            "looks like an IP address, in a form programs read differently; write it as in 192.0.2.1"
        ) from error


def _ipv6(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise ValueError("is neither a host name nor an IP address; write the host name alone") from error
    if not isinstance(address, IPv6Address) or address.scope_id:
        raise ValueError("is an address of one interface; write it without the part after '%'")
    if address.ipv4_mapped:
        raise ValueError(f"is an IPv4 address in IPv6 form; write {address.ipv4_mapped}")
    if str(address) != text.lower():
        raise ValueError(f"is not in the usual form; write {address}")
    return str(address)
