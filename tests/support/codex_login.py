"""A login as Codex leaves it on a host, made up."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ACCOUNT = "https://api.openai.com/auth"


def jwt(claims: dict[str, object], signature: str = "") -> str:
    """Make a JWT with a signature that nobody ever made."""
    parts = [{"alg": "RS256", "kid": "made-up", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, signature or secrets.token_urlsafe(64)])


def claims_of(token: str) -> dict[str, object]:
    """Read a JWT's claims."""
    payload = token.split(".")[1]
    read: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return read


@dataclass(slots=True, kw_only=True)
class CodexLogin:
    """One login; ``lasts`` is in seconds from now."""

    account: str = field(default_factory=lambda: f"acct-{secrets.token_hex(8)}")
    lasts: int = 10 * 86400
    access_token: str = field(init=False)
    id_token: str = field(init=False)
    refresh_token: str = field(init=False)
    ends: int = field(init=False)

    def __post_init__(self) -> None:
        self.ends = int(time.time()) + self.lasts
        owner = {
            "chatgpt_account_id": self.account,
            "chatgpt_user_id": "user-made-up",
            "chatgpt_plan_type": "pro",
        }
        session = secrets.token_hex(16)
        self.access_token = jwt({"exp": self.ends, "sub": "someone", "session_id": session, ACCOUNT: owner})
        self.id_token = jwt(
            {"exp": self.ends - 864000 + 3600, "email": "someone@example.com", ACCOUNT: owner}
        )
        self.refresh_token = f"rt_{secrets.token_urlsafe(48)}"

    def auth_json(self) -> dict[str, object]:
        """Give the content of ``auth.json``."""
        return {
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": None,
            "tokens": {
                "id_token": self.id_token,
                "access_token": self.access_token,
                "refresh_token": self.refresh_token,
                "account_id": self.account,
            },
            "last_refresh": "2026-01-02T03:04:05.678901Z",
        }

    def write(self, folder: Path) -> Path:
        """Write ``auth.json`` into ``folder`` as Codex does; gives its path."""
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / "auth.json"
        path.write_text(json.dumps(self.auth_json(), indent=2))
        path.chmod(0o600)
        return path

    def secrets(self) -> tuple[str, ...]:
        """Give every text that must stay outside: the tokens, and the signatures that make them valid."""
        tokens = (self.access_token, self.id_token, self.refresh_token)
        return (*tokens, *(token.rpartition(".")[2] for token in tokens[:2]))

    def found_in(self, data: bytes) -> list[str]:
        """Name the secrets, in hexadecimal or base64 too, that ``data`` holds."""
        found = []
        for number, secret in enumerate(self.secrets()):
            raw = secret.encode()
            if any(form in data for form in (raw, raw.hex().encode(), base64.b64encode(raw)[:-4])):
                found.append(f"secret {number}")
        return found
