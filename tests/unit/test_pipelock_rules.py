"""Our own rules: each form of key by itself, in every disguise; and what only looks like one."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import string
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from bot_bottle.pipelock import numbers
from bot_bottle.pipelock.finding import Context
from tests.support.pipelock import ALNUM, FORMS, letters, own_secrets, scanner

if TYPE_CHECKING:
    from bot_bottle.pipelock.finding import Finding, Place

EGRESS = scanner(own=own_secrets({}))
STRICT = scanner("strict", own=own_secrets({}))
UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
DASH = ALNUM + "-_"


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


JWT = ".".join(
    [
        _segment(b'{"alg":"HS256","typ":"JWT"}'),
        _segment(b'{"sub":"42","name":"A. Turing"}'),
        letters(43, DASH),
    ]
)


def _base58check(payload: bytes) -> str:
    digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    raw = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    value, text = int.from_bytes(raw, "big"), ""
    while value:
        value, digit = divmod(value, 58)
        text = digits[digit] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


#: One made-up key for each rule, as its maker writes them.
KEYS = {
    "aws-access-key-id": "AKIA" + letters(16, UPPER),
    "github-token": "ghp_" + letters(36),
    "github-fine-grained-token": "github_pat_" + letters(82, ALNUM + "_"),
    "gitlab-token": "glpat-" + letters(20),
    "slack-token": f"xoxb-{letters(12, string.digits)}-{letters(12, string.digits)}-{letters(24)}",
    "slack-app-token": f"xapp-1-A{letters(10, UPPER)}-{letters(13, string.digits)}-{letters(64, HEX)}",
    "slack-webhook": f"https://hooks.slack.com/services/T{letters(8, UPPER)}/B{letters(8, UPPER)}/"
    + letters(24),
    "stripe-key": "sk_live_" + letters(24),
    "stripe-webhook-secret": "whsec_" + letters(32),
    "openai-key": "sk-proj-" + letters(74, DASH),
    "openai-legacy-key": "sk-" + letters(48),
    "anthropic-key": f"sk-ant-api03-{letters(93, DASH)}AA",
    "openrouter-key": "sk-or-v1-" + letters(64, HEX),
    "google-api-key": "AIza" + letters(35, DASH),
    "google-oauth-secret": "GOCSPX-" + letters(28, DASH),
    "google-oauth-token": "ya29.a" + letters(120, DASH),
    "azure-client-secret": f"{letters(3)}8Q~{letters(34)}",
    "npm-token": "npm_" + letters(36),
    "pypi-token": "pypi-AgEIcHlwaS5vcmc" + letters(80, DASH),
    "rubygems-token": "rubygems_" + letters(48, HEX),
    "docker-token": "dckr_pat_" + letters(27, DASH),
    "huggingface-token": "hf_" + letters(34, string.ascii_letters),
    "sendgrid-key": f"SG.{letters(22, DASH)}.{letters(43, DASH)}",
    "twilio-key": "SK" + letters(32, HEX),
    "digitalocean-token": "dop_v1_" + letters(64, HEX),
    "shopify-token": "shpat_" + letters(32, HEX),
    "vault-token": "hvs." + letters(95, DASH),
    "telegram-bot-token": f"{letters(9, '123456789')}:AA{letters(33, DASH)}",
    "planetscale-token": "pscale_tkn_" + letters(43),
    "flyio-token": "fo1_" + letters(43, DASH),
    "wallet-private-key": _base58check(b"\x80" + hashlib.sha256(b"wallet").digest() + b"\x01"),
    "iban": "DE89370400440532013000",
}
AWS_SECRET = letters(20) + "/" + letters(18) + "+"


def _rules(found: tuple[Finding, ...]) -> set[str]:
    return {entry.rule for entry in found}


def _body(text: str | bytes, kind: str = "application/json") -> tuple[Finding, ...]:
    data = text.encode() if isinstance(text, str) else text
    return EGRESS.scan(data, Context(content_type=kind))


@pytest.mark.parametrize("rule", KEYS)
@pytest.mark.parametrize("place", ["path", "query", "header", "cookie", "body", "websocket", "trailer"])
def test_every_key_at_every_place(rule: str, place: Place) -> None:
    key = KEYS[rule]
    for text in (key, f'{{"k": "{key}"}}', f"key={key}&a=b", f"KEY={key}\nOTHER=1\n", f"curl -d '{key}' x"):
        found = EGRESS.scan(text.encode(), Context(place=place))
        assert rule in _rules(found)
        hit = next(entry for entry in found if entry.rule == rule)
        assert hit.where.place == place
        assert text[hit.where.offset :].startswith(key.removeprefix("https://"))
        assert all(key not in repr(entry) for entry in found)


@pytest.mark.parametrize(
    "form",
    [
        "base64",
        "base64, URL alphabet",
        "base64, wrapped in JSON",
        "base64, three times",
        "hex",
        "hex, colons",
        "hex, dashes",
        "hex, backslash x",
        "base32",
        "percent, every byte",
        "percent, twice",
        "percent, three times",
        "percent, every other byte",
        "unicode escapes",
        "unicode escapes, every other",
        "character references",
        "zero-width characters",
        "full-width letters",
        "gzip in base64",
        "gzip",
        "zstd",
    ],
)
def test_every_key_in_every_disguise(form: str) -> None:
    missed = []
    for rule, key in KEYS.items():
        written = FORMS[form](key.encode())
        found = EGRESS.scan(b"data=" + written + b"\n", Context())
        hits = [
            entry
            for entry in found
            if entry.rule == rule or (rule == "twilio-key" and entry.kind == "credential")
        ]
        if not hits:
            missed.append(rule)
        elif form not in {"gzip", "gzip in base64", "zstd"}:
            assert hits[0].where.layers
            assert hits[0].where.offset == -1
    assert missed == []


@pytest.mark.parametrize(
    "rule", ["github-token", "anthropic-key", "aws-access-key-id", "stripe-key", "npm-token"]
)
def test_a_key_cut_in_two_fields(rule: str) -> None:
    key = KEYS[rule]
    for cut in (10, len(key) // 2, len(key) - 3):
        left, right = key[:cut], key[cut:]
        assert rule in _rules(_body(json.dumps({"a": {"first": left, "second": right}, "b": 3})))
        assert rule in _rules(
            _body(json.dumps({"a": left, "note": "x", "b": right})) or _body(json.dumps([left, right]))
        )
        assert rule in _rules(EGRESS.scan(f"a={left}&b={right}".encode(), Context(place="query")))
        assert rule in _rules(_body(f"a={left}&b={right}", "application/x-www-form-urlencoded"))


def test_an_aws_secret_key() -> None:
    assert "aws-secret-access-key" in _rules(_body(f"AWS_SECRET_ACCESS_KEY={AWS_SECRET}\n"))
    assert "aws-secret-access-key" in _rules(_body(json.dumps({"SecretAccessKey": AWS_SECRET})))
    hidden = b"\x01\x02\x03" + AWS_SECRET.encode() + b"\n\0\xff"
    assert "encoded-secret-key" in _rules(_body(hidden.hex(), "application/octet-stream"))
    assert "encoded-secret-key" in _rules(_body(base64.b64encode(AWS_SECRET.encode())))
    assert _body(AWS_SECRET) == ()  # forty letters by themselves say nothing


def test_the_public_half_of_a_signed_url_is_no_leak() -> None:
    credential = f"{KEYS['aws-access-key-id']}%2F20260723%2Fus-east-1%2Fs3"
    query = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}"
    assert (
        EGRESS.scan(
            f"{query}%2Faws4_request&X-Amz-Signature={letters(64, HEX)}".encode(), Context(place="query")
        )
        == ()
    )


@pytest.mark.parametrize(
    "text",
    [
        f'{{"auth": "Bearer {JWT}"}}',
        f'{{"token":"{JWT}"}}',
        f'["{JWT}"]',
        JWT,
        f"a=1&token={JWT}",
        f"HOME=/home/u\nexport API_TOKEN={JWT}\n",
        f'{{"url": "https://x.test/?t={JWT}"}}',
    ],
)
def test_a_web_token_in_a_credentials_place(text: str) -> None:
    assert "jwt" in _rules(_body(text))


@pytest.mark.parametrize("place", ["path", "query", "header", "cookie"])
def test_a_web_token_outside_of_a_body(place: Place) -> None:
    assert "jwt" in _rules(EGRESS.scan(f"x: Bearer {JWT}".encode(), Context(place=place)))


@pytest.mark.parametrize(
    "text",
    [
        f"A token looks like this:\n\n```\n{JWT}\n```\n",
        f"    decode('{JWT}', key)",
        f"eyJ.. as in `{JWT}` above",
        f">>> token = {JWT!r}",
        f'assert decode("{JWT}") == {{}}',
    ],
)
def test_a_web_token_in_documentation(text: str) -> None:
    assert _body(text, "text/markdown") == ()
    assert _body(json.dumps({"messages": [{"role": "user", "content": text}]})) == ()


PEM = base64.encodebytes(letters(900).encode()).decode()


@pytest.mark.parametrize("name", ["", "RSA ", "EC ", "OPENSSH ", "DSA ", "ENCRYPTED "])
def test_a_private_key(name: str) -> None:
    key = f"-----BEGIN {name}PRIVATE KEY-----\n{PEM}-----END {name}PRIVATE KEY-----\n"
    for text in (key, json.dumps({"key": key}), quote(key), base64.b64encode(key.encode()).decode()):
        assert "private-key" in _rules(_body(text))
    assert _body(f"-----BEGIN {name}PRIVATE KEY-----\n...\n") == ()
    assert _body(f"-----BEGIN PUBLIC KEY-----\n{PEM}-----END PUBLIC KEY-----\n") == ()


@pytest.mark.parametrize(
    "text",
    [
        '{"payment": {"card_number": "4111111111111111"}}',
        "visa 4012888888881881 exp 12/28",
        "5555 5555 5555 4444",
        "pan=3714 496353 98431",
        "6011-1111-1111-1117",
        '{"cvv": "123", "n": 378282246310005}',
    ],
)
def test_a_card_number(text: str) -> None:
    assert "card-number" in _rules(_body(text))


@pytest.mark.parametrize(
    "text",
    [
        '{"id": 4111111111111111}',
        '{"card": "4111111111111112"}',
        "card 4000000000000000000000000000000002",
        '{"time_ns": 1784790000123456789, "card": "ace of spades"}',
        "4111.1111.1111.1111 card",
        "card 1234567890123452",
    ],
)
def test_a_number_that_is_no_card(text: str) -> None:
    assert _body(text) == ()


def test_bank_and_wallet_numbers() -> None:
    assert "iban" in _rules(EGRESS.scan(b"iban=GB29NWBK60161331926819", Context(place="query")))
    assert "iban" in _rules(_body('{"account": "FR14 2004 1010 0505 0001 3M02 606"}'))
    assert _body('{"account": "GB29NWBK60161331926818"}') == ()
    address = _base58check(b"\0" + hashlib.sha256(b"x").digest()[:20])
    assert "wallet-address" in _rules(EGRESS.scan(f"to={address}".encode(), Context(place="query")))
    assert _body(f"send to {address}") == ()
    eth = "0x" + letters(40, HEX)
    assert "ethereum-address" in _rules(EGRESS.scan(f"eth={eth}".encode(), Context(place="query")))
    words = "abandon ability able about above absent absorb abstract absurd abuse access accident"
    assert "seed-phrase" in _rules(_body(json.dumps({"seed_phrase": words})))
    assert "seed-words" in _rules(_body(json.dumps({"text": words})))
    assert _body(json.dumps({"text": f"the words are {words} and so on"})) == ()


def test_checksums() -> None:
    assert numbers.is_wallet_address(b"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4")  # BIP 173
    assert not numbers.is_wallet_address(b"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5")
    assert not numbers.is_wallet_address(b"bc1b0")
    assert numbers.is_wallet_key(b"5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ")
    assert not numbers.is_wallet_key(b"5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTK")
    assert numbers.base58check(b"0OIl") is None
    assert numbers.entropy(b"") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "postgres://app:Xk29vLq0pWz7@db.prod.example.com/app",
        "amqp://u:a8Sk2lQ9zz0P@mq/",
        "https://me:t0psecret99x@host/x",
    ],
)
def test_a_password_in_a_url(text: str) -> None:
    assert "password-in-url" in _rules(_body(text))


@pytest.mark.parametrize(
    "text",
    [
        "postgres://postgres:postgres@localhost/db",
        "mysql://user:password@db/x",
        "redis://:${REDIS_PASSWORD}@cache",
        "https://user:<your-password-1>@host/",
        "postgres://app:{{ db_password1 }}@db/app",
        "ftp://anonymous@host/",
    ],
)
def test_a_placeholder_in_a_url(text: str) -> None:
    assert _body(text) == ()


@pytest.mark.parametrize(
    "key", ["AKIAIOSFODNN7EXAMPLE", "ghp_" + "x" * 36, "AKIA" + "X" * 16, "glpat-aaaaaaaaaaaaaaaaaaaa"]
)
def test_strict_lets_placeholders_pass(key: str) -> None:
    assert STRICT.scan(f"key = {key}".encode(), Context(place="file")) == ()


def test_egress_does_not_care_what_a_key_calls_itself() -> None:
    for key in (
        "AKIAIOSFODNN7EXAMPLE",
        "sk-proj-" + "FAKE" * 12,
        "SG.FAKE_TEST_KEY_0000000." + "FAKE_TEST_0" * 4,
    ):
        assert _body(json.dumps({"k": key}))


def test_what_the_bottle_was_given_in_a_keys_place_is_no_finding() -> None:
    placeholder = "sk-ant-oat01-" + letters(60)
    with_it = scanner(own=own_secrets({}), placeholders=[placeholder.encode()])
    assert with_it.scan(f"Authorization: Bearer {placeholder}".encode(), Context(place="header")) == ()
    assert EGRESS.scan(f"Authorization: Bearer {placeholder}".encode(), Context(place="header"))
    other = f"Authorization: Bearer sk-ant-oat01-{letters(60)}".encode()
    assert with_it.scan(other, Context(place="header"))


def test_content_rules_off() -> None:
    text = json.dumps({"k": list(KEYS.values())}).encode()
    assert EGRESS.scan(text, Context(rules=False)) == ()
    assert EGRESS.scan(gzip.compress(text), Context(rules=False)) == ()


@pytest.mark.parametrize(
    ("path", "data", "rule"),
    [
        ("certs/client.p12", b"\x30\x82", "key-store-file"),
        (
            "deploy/secret.yaml",
            b"apiVersion: v1\nkind: Secret\ndata:\n  password: bTNnNHMzY3JldCFwYXNz\n",
            "kubernetes-secret",
        ),
        ("main.tf", b'password = "q8Zk2vL0pW"\n', "terraform-password"),
    ],
)
def test_secrets_known_by_their_file(path: str, data: bytes, rule: str) -> None:
    assert rule in _rules(STRICT.scan(data, Context(place="file", path=path)))
    assert STRICT.scan(data, Context(place="file", path="notes.txt")) == ()


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("a.yaml", b"kind: Secret\ndata:\n  password: '{{ password }}'\n"),
        ("a.yaml", b"kind: ConfigMap\ndata:\n  blob: bTNnNHMzY3JldCFwYXNz\n"),
        ("a.tf", b'password = "${var.db}"\npassword = var.db_password\npassword = "********"\n'),
        ("type.P126.html", b""),
    ],
)
def test_files_that_only_name_secrets(path: str, data: bytes) -> None:
    assert STRICT.scan(data, Context(place="file", path=path)) == ()
