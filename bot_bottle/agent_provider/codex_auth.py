"""The login of Codex on this host: its access token for egress, and a stand-in for it for the bottle.

``auth.json`` is read once, at prepare. No sentence and no exception here carries a word of what it holds.
"""

from __future__ import annotations

import base64
import binascii
import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle import files
from bot_bottle.errors import UsageError
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

Json: TypeAlias = dict[str, object]

#: Given to Codex where it insists on a key; it opens nothing.
PLACEHOLDER_KEY = "sk-egress-placeholder"
PLACEHOLDER_REFRESH = "egress-placeholder"

#: Seconds a token must still be good for: a bottle takes some to start, and Codex renews what is nearly over.
_MARGIN = 300
_MAX_BYTES = 1 << 20
#: What is shorter could be anything, an account's name among it.
_SHORTEST_CREDENTIAL = 12
_LOGIN = "run: codex login"

_ACCOUNT_CLAIMS = "https://api.openai.com/auth"
#: What Codex reads of a token. Everything else stays outside, whatever its issuer puts there one day.
_KEPT_CLAIMS = ("iss", "aud", "sub", "iat", "exp", "email", _ACCOUNT_CLAIMS, "https://api.openai.com/profile")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLogin:
    """A login that can be forwarded: the real token, when it ends (seconds since the epoch), and the
    ``auth.json`` that the bottle gets instead.
    """

    access_token: Secret
    ends_at: float
    stand_in: bytes


def read_host_login(env: Mapping[str, str], now: float) -> HostLogin:
    """Read the login of the operator whose environment is ``env``; ``now`` in seconds since the epoch.

    ``CODEX_HOME`` says where, ``~/.codex`` otherwise. Raises ``UsageError``, each time with the command that
    mends it: no login, one that cannot be read or that others may have put there, an API key, a file Codex
    would not write, a token that is over.
    """
    folder = env.get("CODEX_HOME") or f"{env.get('HOME') or Path.home()}/.codex"
    path = Path(folder) / "auth.json"
    return login_from(_read(path), path, now)


def login_from(content: bytes, path: Path, now: float) -> HostLogin:
    """Make a login of the content of ``path``; pure. Raises as :func:`read_host_login` does."""
    data = _object(content)
    tokens = data.get("tokens") if data is not None else None
    if data is None or not isinstance(tokens, dict | None):
        raise _malformed(path, "it is no JSON object")
    mode = data.get("auth_mode") or ("apikey" if data.get("OPENAI_API_KEY") and not tokens else "chatgpt")
    if mode == "apikey":
        raise UsageError(
            f"{path} holds an API key and no ChatGPT login; {_LOGIN}, or export that key and write "
            "api_key: OPENAI_API_KEY instead of forward_host_credentials"
        )
    if mode != "chatgpt":
        raise UsageError(f"{path} holds a login of a kind that cannot be forwarded; {_LOGIN}")
    access, identity = _text(tokens, "access_token"), _text(tokens, "id_token")
    access_claims, identity_claims = _claims(access), _claims(identity)
    if access_claims is None or identity_claims is None:
        raise _malformed(path, "a token is missing or is no JWT")
    ends = access_claims.get("exp")
    if not isinstance(ends, int) or isinstance(ends, bool) or not 0 <= ends < 1 << 40:
        raise _malformed(path, "its access token does not say when it ends")
    if ends <= now + _MARGIN:
        when = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M")
        raise UsageError(f"the login in {path} is good until {when} UTC only; {_LOGIN}")
    account = _text(tokens, "account_id") or _account_of(access_claims) or _account_of(identity_claims)
    if not account:
        raise _malformed(path, "it names no account")
    kept = [_kept(identity_claims), _kept(access_claims)]
    real = (access, identity, _text(tokens, "refresh_token"), _text(data, "OPENAI_API_KEY"))
    if _holds(json.dumps([account, kept]), real):
        raise _malformed(path, "it repeats a credential where none belongs")
    stand_in = {
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": None,
        "tokens": {
            "id_token": _unsigned(kept[0]),
            "access_token": _unsigned(kept[1]),
            "refresh_token": PLACEHOLDER_REFRESH,
            "account_id": account,
        },
        # Fresh, or Codex would try to renew the stand-in at its first start.
        "last_refresh": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    made = f"{json.dumps(stand_in, indent=2)}\n".encode()
    return HostLogin(access_token=Secret(access), ends_at=float(ends), stand_in=made)


def api_key_stand_in() -> bytes:
    """Give the ``auth.json`` of a bottle whose API key egress adds."""
    return f"{json.dumps({'auth_mode': 'apikey', 'OPENAI_API_KEY': PLACEHOLDER_KEY}, indent=2)}\n".encode()


def _read(path: Path) -> bytes:
    again = f"run: rm -f {shlex.quote(str(path))} && codex login"
    try:
        found = files.read_plain(path, limit=_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist: Codex is not logged in on this host, or keeps its login in a keyring; "
            "run: codex login -c cli_auth_credentials_store=file"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); {again}") from error
    if found.content is None or len(found.content) > _MAX_BYTES:
        raise UsageError(f"{path} is no file of a login; {again}")
    # Whoever can write there chooses the account that reads all the agent is told.
    if not found.own:
        raise UsageError(f"{path} can be written by other users, so the login may be anybody's; {again}")
    return found.content


def _object(content: bytes) -> Json | None:
    # An exception of the parser carries what it parsed, so none leaves this function.
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _claims(token: str) -> Json | None:
    """Give a JWT's claims (RFC 7519, 3.1); its signature is the upstream's to check."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts) or not token.isascii() or not token.isprintable():
        return None
    try:
        payload = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return _object(payload)


def _kept(claims: Json) -> Json:
    return {name: claims[name] for name in _KEPT_CLAIMS if name in claims}


def _holds(text: str, credentials: tuple[str, ...]) -> bool:
    """Whether a text in JSON holds one of ``credentials``, or the signature that makes one valid."""
    parts = [part for token in credentials for part in (token, token.rpartition(".")[2])]
    return any(len(part) >= _SHORTEST_CREDENTIAL and json.dumps(part)[1:-1] in text for part in parts)


def _unsigned(claims: Json) -> str:
    """Write a well-formed JWT that nobody signed (RFC 7519, 6; Codex wants some text for a signature)."""
    parts = ({"alg": "none", "typ": "JWT"}, {"placeholder": "egress", **claims})
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return f"{'.'.join(encoded)}.placeholder"


def placeholder_mark() -> str:
    """Give the text that every stand-in for a token begins with, and no token that somebody signed."""
    head, claims, _signature = _unsigned({}).split(".")
    # The last three digits depend on what follows the first claim.
    return f"{head}.{claims[: (len(claims) - 2) // 4 * 4]}"


def _account_of(claims: Json) -> str:
    account = claims.get(_ACCOUNT_CLAIMS)
    return _text(account, "chatgpt_account_id") if isinstance(account, dict) else ""


def _text(data: Json | None, key: str) -> str:
    value = data.get(key) if data else None
    return value if isinstance(value, str) else ""


def _malformed(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} is not as Codex writes it: {what}; {_LOGIN}")
