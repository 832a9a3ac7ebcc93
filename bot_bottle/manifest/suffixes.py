"""Names under which strangers get their own names; a wildcard over one opens somebody else's server.

The Public Suffix List says which these are, its private section (hosters) included. It comes as the data of
the package ``publicsuffixlist``, released with each change of the list, and is read only once a wildcard is
met. Its rules are at https://github.com/publicsuffix/list/wiki/Format. Only the data is used: that package
answers whether a name is on the list, and a wildcard must also be judged by what lies below its name
(``*.amazonaws.com`` covers ``anyone.s3.amazonaws.com``).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# fmt: off
#: Rules in the list's own form for names that anyone can get one under although the list lacks them:
#: hosters and services with a name a customer, tunnels, names that lead to the address written in them,
#: and servers that record what is sent to them.
_ALSO_SHARED = (
    "000webhostapp.com", "aliyuncs.com", "atlassian.net", "b-cdn.net", "backblazeb2.com",
    "blob.vercel-storage.com", "cloudapp.azure.com", "*.cloudapp.azure.com", "codesandbox.io",
    "dropboxusercontent.com", "firebaseio.com", "force.com", "github.dev", "app.github.dev", "gitpod.io",
    "*.gitpod.io", "glitch.me", "googleusercontent.com", "gradio.live", "koyeb.app", "medium.com",
    "modal.run", "my.salesforce.com", "myqcloud.com", "neocities.org", "okta.com", "r2.cloudflarestorage.com",
    "sharepoint.com", "slack.com", "stackblitz.io", "storage.googleapis.com", "substack.com", "tiiny.site",
    "tumblr.com", "*.wasabisys.com", "webcontainer.io", "weebly.com", "wordpress.com", "zendesk.com",
    "lhr.life", "lhrtunnel.link", "loca.lt", "localhost.run", "pagekite.me", "pinggy.link", "pinggy.io",
    "serveo.net", "serveousercontent.com", "tunnelto.dev",
    "afraid.org", "mooo.com", "nip.io", "sslip.io", "traefik.me", "xip.io",
    "beeceptor.com", "burpcollaborator.net", "ceye.io", "dnslog.cn", "interact.sh", "oast.fun", "oast.live",
    "oast.me", "oast.online", "oast.pro", "oast.site", "oastify.com", "pipedream.net", "m.pipedream.net",
    "requestcatcher.com", "webhook.site",
)
# fmt: on


class _Rules(NamedTuple):
    """The list, taken apart: ``below`` has, for each name above a shared one, one such name."""

    exact: frozenset[str]
    wildcards: frozenset[str]
    exceptions: frozenset[str]
    below: dict[str, str]


def shared_suffix(name: str) -> str:
    """Give the shared suffix that ``name`` (lower case, A-labels, two at least) is, or that lies below it.

    Names directly below a shared suffix belong to many owners. ``""`` where the list knows of none: then
    the name is one owner's. A top-level domain that the list lacks is one too, like any other. Raises
    ``ValueError`` with a sentence where the list cannot be read.
    """
    rules = _rules()
    _, _, parent = name.partition(".")
    if name in rules.exact or (parent in rules.wildcards and name not in rules.exceptions):
        return name
    return rules.below.get(name, "")


@cache
def _rules() -> _Rules:
    try:
        from publicsuffixlist import PSLFILE  # noqa: PLC0415 - only a wildcard needs it

        return _taken_apart((*Path(PSLFILE).read_text("utf-8").splitlines(), *_ALSO_SHARED))
    except (ImportError, OSError) as error:
        raise ValueError(
            "cannot be judged without the Public Suffix List; install the Python package publicsuffixlist"
        ) from error


def _taken_apart(lines: Iterable[str]) -> _Rules:
    exact: set[str] = set()
    wildcards: set[str] = set()
    exceptions: set[str] = set()
    below: dict[str, str] = {}
    for rule in _rule_texts(lines):
        name = rule.removeprefix("!").removeprefix("*.")
        if rule.startswith("!"):
            exceptions.add(name)
            continue
        if rule.startswith("*."):
            # That anyone can get names under it makes it a suffix itself (the list's linter demands so).
            wildcards.add(name)
        exact.add(name)
        _, _, above = name.partition(".")
        while above:
            below.setdefault(above, name)
            _, _, above = above.partition(".")
    return _Rules(frozenset(exact), frozenset(wildcards), frozenset(exceptions), below)


def _rule_texts(lines: Iterable[str]) -> Iterator[str]:
    """Give each line up to its first space, as A-labels; comments and empty lines are left out."""
    for line in lines:
        rule, _, _ = line.strip().partition(" ")
        if rule and not rule.startswith("//"):
            yield rule if rule.isascii() else rule.encode("idna").decode("ascii")
