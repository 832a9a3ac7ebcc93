"""Names under which strangers get their own names; a wildcard over one opens somebody else's server.

Not the whole Public Suffix List, which changes weekly: the registries' habits and the hosters an agent is
likely to be pointed at. A single label (``*.com``) is refused before this is asked.
"""

from __future__ import annotations

# fmt: off
#: Second labels under which a two-letter country domain registers names (``co.uk``, ``com.au``).
_REGISTRY_LABELS = frozenset({
    "ac", "asn", "co", "com", "edu", "firm", "gen", "gob", "go", "gov", "gouv", "id", "ind", "info", "me",
    "mil", "ne", "net", "nhs", "nic", "nom", "or", "org", "plc", "police", "sch", "web",
})

#: Domains whose subdomains belong to the hoster's customers.
_HOSTER_SUFFIXES = frozenset({
    "amazonaws.com", "appspot.com", "azureedge.net", "azurefd.net", "azurewebsites.net", "bitbucket.io",
    "blob.core.windows.net", "blogspot.com", "cloudapp.net", "cloudfront.net", "codeberg.page",
    "core.windows.net", "deno.dev", "duckdns.org", "fastly.net", "firebaseapp.com", "firebaseio.com",
    "fly.dev", "github.dev", "github.io", "githubpreview.dev", "githubusercontent.com", "gitlab.io",
    "glitch.me", "googleapis.com", "googleusercontent.com", "herokuapp.com", "hf.space", "loca.lt",
    "netlify.app", "ngrok-free.app", "ngrok.app", "ngrok.dev", "ngrok.io", "nip.io", "now.sh", "oast.fun",
    "oast.live", "oast.me", "oast.online", "oast.pro", "oast.site", "oastify.com", "onrender.com",
    "pages.dev", "pipedream.net", "r2.dev", "railway.app", "readthedocs.io", "repl.co", "replit.app",
    "replit.dev", "run.app", "s3.amazonaws.com", "serveo.net", "sslip.io", "storage.googleapis.com",
    "streamlit.app", "supabase.co", "surge.sh", "trafficmanager.net", "trycloudflare.com", "vercel.app",
    "web.app", "workers.dev",
})
# fmt: on


def is_shared_suffix(name: str) -> bool:
    """Tell whether names directly below ``name`` (lower case, A-labels) belong to many owners."""
    first, _, rest = name.partition(".")
    return name in _HOSTER_SUFFIXES or (len(rest) == 2 and first in _REGISTRY_LABELS)
