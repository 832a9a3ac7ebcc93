"""What single values of a manifest may be; each check gives the normal form or raises a sentence.

All raise ``ValueError``. Values that may be a credential written in the wrong place are never repeated.
"""

from __future__ import annotations

import re
from ipaddress import ip_network

from bot_bottle.egress.routes import PRESET_METHODS, USAGE_API_NAMES
from bot_bottle.manifest.problem import shown
from bot_bottle.pipelock.selection import DETECTORS

#: Agent and bottle names, and so their file names without ``.md``.
NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,62}")

#: Remote names end up as folder names and in URLs that git reads.
REMOTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SKILL_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

_MAX_GIT_TEXT = 200

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
METHOD = re.compile(r"[A-Z]+(-[A-Z]+)*")
MEMORY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(KiB|MiB|GiB|TiB)")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_MIN_MEMORY = 32 << 20
_MAX_MEMORY = 1 << 50

#: The "reference" grammar of distribution, so that a mistake is found before an engine is asked.
IMAGE_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
MAX_IMAGE = 400

#: RFC 3986, 3.3, without escapes and ``;``: egress checks every reading of a path, so they would never match.
PATH_CHARS = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@/-]+")


def name_reference(text: str) -> str:
    """Accept the name of a bottle or an agent."""
    if not NAME_PATTERN.fullmatch(text):
        raise ValueError("is no name; write the file name without .md: small letters, digits and hyphens")
    return text


def env_name(text: str) -> str:
    """Accept the name of an environment variable (POSIX XBD 8.1, both cases)."""
    if not ENV_NAME.fullmatch(text):
        raise ValueError("is no variable name; use letters, digits and _, not starting with a digit")
    return text


#: Credentials that could pass for a variable's name: issuers' prefixes, and long runs of mixed characters.
_CREDENTIAL = re.compile(
    r"gh[pousr]_|github_pat_|glpat|sk_(live|test)_|rk_live_|npm_|hf_|xox[abprs]|ya29|eyJ|AKIA[A-Z0-9]{12}|ASIA[A-Z0-9]{12}"
    r"|(?=\w*[a-z])(?=\w*[A-Z])(?=\w*[0-9])\w{28,}"
)


def token_name(text: str) -> str:
    """Accept the name of the host variable that holds a credential; what was written is never repeated."""
    if not ENV_NAME.fullmatch(text) or _CREDENTIAL.match(text):
        raise ValueError(
            "must be the name of a host variable, never the credential itself; write for example MY_TOKEN"
        )
    return text


def env_value(text: str) -> str:
    """Accept the value of a bottle's variable: any text without NUL (execve(2) cannot carry one)."""
    if "\0" in text:
        raise ValueError("holds a NUL character, which no variable can; remove it")
    return text


#: How a credential can enter a request.
AUTH_SCHEMES = ("Bearer", "token", "Basic", "header", "query")
#: A header's name, a parameter's, or a user without the colon that ends one (RFC 7617, 2).
AUTH_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~@/-]{1,100}")
PLACEHOLDER = re.compile(r"[!-~]{8,4000}")


def auth_scheme(text: str) -> str:
    """Accept how a credential enters a request."""
    if text not in AUTH_SCHEMES:
        raise ValueError(
            f"is no known scheme; write {', '.join(AUTH_SCHEMES[:-1])} or {AUTH_SCHEMES[-1]}, and the "
            "credential's variable in token_ref"
        )
    return text


def auth_name(text: str) -> str:
    """Accept the name of a header, a parameter or a user; which of them the scheme says (``rules.py``)."""
    if not AUTH_NAME.fullmatch(text) or _CREDENTIAL.match(text):
        raise ValueError("is no name of a header, a parameter or a user; write for example X-Api-Key")
    return text


def placeholder(text: str) -> str:
    """Accept a text that stands for a credential; short ones would be met by chance."""
    if not PLACEHOLDER.fullmatch(text):
        raise ValueError(
            "is no placeholder; write at least 8 printable characters without spaces, such as "
            "api-key-placeholder"
        )
    return text


def path_prefix(text: str) -> str:
    """Accept one path prefix: absolute, unambiguous, without query or fragment (attack list B10)."""
    if not text.startswith("/"):
        raise ValueError("does not start with '/'; write an absolute path prefix such as /v1/")
    if "?" in text or "#" in text:
        raise ValueError("holds a query or fragment; write the path alone")
    if not PATH_CHARS.fullmatch(text):
        raise ValueError(
            "holds an escape or a character that servers read differently; write the plain part before it"
        )
    if any(segment in {".", ".."} for segment in text.split("/")):
        raise ValueError("holds a '.' or '..' segment; write the path it leads to")
    if "//" in text:
        raise ValueError("holds an empty segment (//); write single slashes")
    return text


def http_method(text: str) -> str:
    """Accept a request method in capitals (RFC 9110, 9.1: methods are case-sensitive)."""
    if not METHOD.fullmatch(text):
        raise ValueError("is no request method; write it in capitals, such as GET")
    if text in {"CONNECT", "TRACE"}:
        raise ValueError(f"{text} is never forwarded; remove it")
    return text


def port(number: int) -> int:
    """Accept a TCP port."""
    if not 1 <= number <= 65535:
        raise ValueError("is no port; write a number from 1 to 65535")
    return number


def network(text: str) -> str:
    """Accept an IP network and give its canonical form."""
    try:
        return str(ip_network(text))
    except ValueError as error:
        try:
            proper = ip_network(text, strict=False)
        except ValueError:
            raise ValueError("is no IP network; write for example 10.1.2.0/24 or 10.1.2.3/32") from error
        raise ValueError(f"has bits set after its prefix; write {proper}") from error


def memory_bytes(text: str) -> int:
    """Read an amount of memory such as ``4GiB`` and give it in bytes."""
    match = MEMORY.fullmatch(text)
    if not match:
        raise ValueError("is no amount of memory; write a number and KiB, MiB or GiB, such as 4GiB")
    amount = int(float(match[1]) * _UNITS[match[2]])
    if amount < _MIN_MEMORY:
        raise ValueError("is too little for any agent; write 32MiB or more")
    if amount > _MAX_MEMORY:
        raise ValueError("is more than any machine has; write for example 4GiB")
    return amount


def memory_text(text: str) -> str:
    """Accept what :func:`memory_bytes` reads, as it is written."""
    memory_bytes(text)
    return text


def text_without_nul(text: str) -> str:
    """Accept an argv element (execve(2) cannot carry a NUL)."""
    if "\0" in text:
        raise ValueError("holds a NUL character, which no argument can; remove it")
    return text


def git_text(text: str) -> str:
    """Accept a name or address for commits: one printable line that git takes as it is."""
    if not text.strip():
        raise ValueError("is empty; write the text or remove the key")
    if not text.isprintable():
        raise ValueError("holds a line break or a control character; write one plain line")
    if "<" in text or ">" in text:
        raise ValueError("holds < or >, which git drops; write the name and the email in their own keys")
    if len(text) > _MAX_GIT_TEXT:
        raise ValueError(f"is longer than {_MAX_GIT_TEXT} characters; shorten it")
    return text


def remote_name(text: str) -> str:
    """Accept the label of a git remote."""
    if not REMOTE_NAME.fullmatch(text) or ".." in text or text.endswith((".git", ".lock", ".")):
        raise ValueError("is no label; use letters, digits, '.', '_' and '-', without .git at its end")
    return text


def ref_pattern(text: str) -> str:
    """Accept a pattern for branches or paths: parts, ``*`` within one, ``**`` for any number of them."""
    parts = text.split("/")
    if not text.isprintable() or len(text) > 200 or " " in text or not all(parts):
        raise ValueError("is no pattern; write parts with slashes between, such as bottle/** or docs/*.md")
    if any("**" in part and part != "**" for part in parts) or text.startswith("refs/"):
        raise ValueError("is no pattern; ** stands for whole parts (a/**/b), and refs/heads/ is left out")
    return text


def positive(number: int) -> int:
    """Accept a count or size."""
    if not 1 <= number <= 1 << 40:
        raise ValueError("is out of range; write a number from 1 to 1099511627776")
    return number


def skill_name(text: str) -> str:
    """Accept the name of a skill's folder, in kebab-case."""
    if not SKILL_NAME.fullmatch(text) or len(text) > 64:
        raise ValueError("is no skill name; write it in kebab-case, such as code-review")
    return text


def host_path(text: str) -> str:
    """Accept the path of a file on the host: absolute, or below ``~/``."""
    if not text.startswith(("/", "~/")):
        raise ValueError("must be an absolute path or start with ~/")
    if not text.isprintable():
        raise ValueError("holds a control character; write a plain path")
    return text


def image(text: str) -> str:
    """Accept what a machine starts from: a folder or archive on the host, or an image's name."""
    if text.startswith(("/", "~/")):
        return host_path(text)
    if len(text) > MAX_IMAGE or not IMAGE_REFERENCE.fullmatch(text):
        raise ValueError(
            "is no image; write the path of a folder or of a docker save archive, or a name such as "
            "node:22-bookworm-slim"
        )
    return text


def detector(text: str) -> str:
    """Accept the name of a group of content rules."""
    if text not in DETECTORS:
        own = "; own_secret is always on" if text == "own_secret" else ""
        raise ValueError(f"{shown(text, 20)!r} is no detector; write {', '.join(DETECTORS)}{own}")
    return text


def on_match(text: str) -> str:
    """Accept what becomes of a request in which something was found."""
    if text not in {"block", "redact", "ask"}:
        raise ValueError(f"{shown(text, 20)!r} is no answer to a finding; write block, redact or ask")
    return text


def engine(text: str) -> str:
    """Accept what scans a bottle's content."""
    if text not in {"builtin", "external"}:
        raise ValueError(f"{shown(text, 20)!r} is no engine; write builtin or external")
    return text


def on_opaque(text: str) -> str:
    """Accept what becomes of content that cannot be read."""
    if text not in {"deny", "allow"}:
        raise ValueError(f"{shown(text, 20)!r} is no answer to unreadable content; write deny or allow")
    return text


def preset(text: str) -> str:
    """Accept the name of what a route is for."""
    if text not in PRESET_METHODS:
        raise ValueError(f"{shown(text, 20)!r} is no preset; write {' or '.join(PRESET_METHODS)}")
    return text


def usage_api(text: str) -> str:
    """Accept the name of the API by which a host's answers say what they used."""
    if text not in USAGE_API_NAMES:
        raise ValueError(f"{shown(text, 20)!r} is no API that is known; write {', '.join(USAGE_API_NAMES)}")
    return text


def responses(text: str) -> str:
    """Accept what becomes of an answer that orders an agent about."""
    if text not in {"off", "warn", "block"}:
        raise ValueError(f"{shown(text, 20)!r} is no answer to such text; write off, warn or block")
    return text


def workspace(text: str) -> str:
    """Accept what a launch finds in its workspace."""
    if text not in {"copy", "empty"}:
        raise ValueError(f"{shown(text, 20)!r} is no workspace; write copy or empty")
    return text
