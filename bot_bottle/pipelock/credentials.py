"""Our own rules: keys that stand alone, as a proxy meets them, in one table.

The rule engine (:mod:`~bot_bottle.pipelock.engine`) is made for source code: it wants a key's companions or
the name of the variable beside it, and forgives keys that call themselves examples. On the wire a key
comes alone and what it calls itself proves nothing, so the ``egress`` profile takes these rules as they are;
``strict`` takes those marked so and lets placeholders pass.
"""

from __future__ import annotations

import re

from bot_bottle.pipelock import numbers
from bot_bottle.pipelock.named_secrets import NAMED_RULES
from bot_bottle.pipelock.rule import AFTER, ASSIGN, BEFORE, Match, Rule

#: A key is as long at least; what somebody puts behind it does not make it plain.
_KEY_LENGTH = 40
_DIFFERENT = 8


def _random_looking(match: Match) -> bool:
    value = match.value[:_KEY_LENGTH]
    # Somebody who tries what gets through writes FAKE and zeros; documentation repeats one letter.
    return numbers.entropy(value) >= 3.0 or len(set(value)) >= _DIFFERENT


def _mixed(value: bytes) -> bool:
    return all(re.search(kind, value) for kind in (rb"[A-Z]", rb"[a-z]", rb"\d"))


_WORDS = re.compile(rb"[A-Za-z][a-z]{4,}|[A-Z]{5,}")


def _aws_secret(match: Match) -> bool:
    """Forty digits of base64 (and what decoding may leave before them): no path, no name, no hash."""
    value = match.value
    if not _mixed(value) or numbers.entropy(value) < 4.0 or value.count(b"/") > 4:
        return False
    words = b"".join(_WORDS.findall(value))
    return len(words) < 24


def _aws_key_id(match: Match) -> bool:
    """Not inside a longer token, and not the public half of a signed URL (AWS SigV4, X-Amz-Credential)."""
    return not re.match(rb"(?:/|%2[Ff])\d{8}(?:/|%2[Ff])[a-z0-9-]+(?:/|%2[Ff])", match.after)


def _named_aws_secret(match: Match) -> bool:
    return _mixed(match.value) and numbers.entropy(match.value) >= 3.5


#: A parameter of a URL or a form, a line of an environment, or nothing at all before it.
_JWT_BEFORE = re.compile(rb"(?i)(?:^|[?&][\w.~-]{1,64}=|\n(?:export )?[A-Z][A-Z0-9_]{2,64}=[\"']?)$")
_JWT_JSON_BEFORE = re.compile(rb"(?i)(?:^|[^\\])\"(?:bearer |token |jwt )?$")
_JWT_JSON_AFTER = re.compile(rb"\"\s*[,}\]]")


def _is_jwt(match: Match) -> bool:
    """A JSON Web Token in a credential's position; one shown in running text is documentation."""
    if match.context.place not in {"body", "websocket", "file"}:
        return True
    if _JWT_BEFORE.search(match.before):
        return True
    # The whole of a JSON string; inside of one its quotes would be escaped.
    return bool(_JWT_JSON_BEFORE.search(match.before) and _JWT_JSON_AFTER.match(match.after))


def _card_in_context(match: Match) -> bool:
    if not numbers.is_card_number(match.value):
        return False
    if not match.value.isdigit():
        return True
    near = match.before + b" " + match.after
    named = re.search(
        rb"(?i)card|credit|debit|\b(?:pan|cc|ccn|ccnum)\b|payment|cvv|cvc|visa|master|amex|billing|expir",
        near,
    )
    return named is not None or match.context.place != "body"


_HARMLESS_PASSWORD = re.compile(
    rb"(?i)pass(?:word|wd)?\d{0,4}|secret|postgres|root|admin|user(?:name)?|test(?:ing)?|change_?me|example|"
    rb"mysql|redis|guest|[x*.]+|\$.*|<.*|\{.*|%.*|\[.*"
)


def _real_password(match: Match) -> bool:
    password = match.value
    if _HARMLESS_PASSWORD.fullmatch(password) or len(password) < 10:
        return False
    return bool(re.search(rb"\d", password) and re.search(rb"[A-Za-z]", password))


def _in_short_text(match: Match) -> bool:
    """In a place for values: URLs and headers, not the running text of a body."""
    return match.context.place not in {"body", "file", "websocket"}


def _wallet_key(match: Match) -> bool:
    return numbers.is_wallet_key(match.value)


def _wallet_address(match: Match) -> bool:
    return _in_short_text(match) and numbers.is_wallet_address(match.value)


def _seed_phrase(match: Match) -> bool:
    return len(match.value.split()) in {12, 15, 18, 21, 24}


def _hidden(match: Match) -> bool:
    """Under a layer of encoding that somebody put there."""
    if match.layers[-1:] == ("hex",):  # what stands before the first pair may read as text too
        return _aws_secret(match)
    return match.layers == ("base64",) and len(match.value) == 40 and _aws_secret(match)


def _key(prefix: bytes, body: bytes) -> bytes:
    return BEFORE + b"(" + prefix + body + b")"


_URL_WITH_USER = (
    rb"(?i)(?:postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|rediss?|amqps?|ftps?|smtps?|https?)://"
    rb"[\w.%~+-]{0,64}:"
)

RULES: tuple[Rule, ...] = (
    Rule(
        id="aws-access-key-id",
        pattern=BEFORE + rb"((?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA|AGPA|ANPA|ANVA|AIPA)[A-Z0-9]{16})" + AFTER,
        judge=lambda match: _random_looking(match) and _aws_key_id(match),
    ),
    Rule(
        id="aws-secret-access-key",
        pattern=rb"(?i)(?:aws|secret)[\w .-]{0,24}['\"\s]{0,3}[=:][\s'\"`=]{0,5}"
        rb"([A-Za-z0-9/+]{40})(?:$|[^A-Za-z0-9/+=])",
        judge=_named_aws_secret,
    ),
    Rule(id="github-token", pattern=_key(rb"gh[oprsu]_", rb"[A-Za-z0-9]{30,251}"), judge=_random_looking),
    Rule(
        id="github-fine-grained-token", pattern=_key(rb"github_pat_", rb"\w{50,100}"), judge=_random_looking
    ),
    Rule(
        id="gitlab-token",
        pattern=_key(rb"gl(?:pat|dt|rt|ptt|cbt|oas|soat|ft|imt|agent|ffct)-", rb"[\w.-]{20,120}"),
        judge=_random_looking,
    ),
    Rule(
        id="slack-token",
        pattern=_key(rb"xox[abcdeoprs]-", rb"[\w-]{20,250}"),
        judge=_random_looking,
        strict=False,
    ),
    Rule(id="slack-app-token", pattern=_key(rb"xapp-\d-", rb"[\w-]{20,250}"), strict=False),
    Rule(
        id="slack-webhook",
        pattern=rb"(hooks\.slack\.com/(?:services|workflows|triggers)/[\w/+]{30,90})",
        strict=False,
    ),
    Rule(
        id="stripe-key", pattern=_key(rb"(?:sk|rk)[_-](?:live|test|prod)[_-]", rb"\w{16,120}"), strict=False
    ),
    Rule(id="stripe-webhook-secret", pattern=_key(rb"whsec_", rb"[A-Za-z0-9+/=]{24,80}")),
    Rule(
        id="openai-key",
        pattern=_key(rb"sk-(?:proj|svcacct|admin|None)-", rb"[\w-]{20,220}"),
        strict=False,
    ),
    Rule(id="openai-legacy-key", pattern=BEFORE + rb"(sk-[A-Za-z0-9]{32,60})" + AFTER, judge=_random_looking),
    Rule(id="anthropic-key", pattern=_key(rb"sk-ant-[a-z]{2,8}\d\d-", rb"[\w-]{24,200}"), strict=False),
    Rule(id="openrouter-key", pattern=_key(rb"sk-or-v1-", rb"[a-f0-9]{64}")),
    Rule(id="google-api-key", pattern=_key(rb"AIza", rb"[\w-]{35}"), judge=_random_looking, strict=False),
    Rule(id="google-oauth-secret", pattern=_key(rb"GOCSPX-", rb"[\w-]{28}")),
    Rule(id="google-oauth-token", pattern=_key(rb"ya29\.", rb"[\w-]{40,400}"), strict=False),
    Rule(
        id="azure-client-secret",
        pattern=rb"(?:^|[\\'\"`\s>=:(,&])([\w~.]{3}\dQ~[\w~.-]{31,34})(?:$|[\\'\"`\s<),&])",
        judge=_random_looking,
    ),
    Rule(
        id="azure-storage-key",
        pattern=rb"(?i)(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{40,88}={0,2})",
        judge=_random_looking,
    ),
    Rule(id="npm-token", pattern=_key(rb"npm_", rb"[A-Za-z0-9]{36}"), judge=_random_looking),
    Rule(id="pypi-token", pattern=_key(rb"pypi-", rb"(?:AgE[\w-]{50,250}|[A-Z][A-Za-z0-9]{39,250})")),
    Rule(id="rubygems-token", pattern=_key(rb"rubygems_", rb"[a-f0-9]{48}")),
    Rule(id="docker-token", pattern=_key(rb"dckr_(?:pat|oat)_", rb"[\w-]{27,60}")),
    Rule(
        id="huggingface-token",
        pattern=_key(rb"hf_", rb"[A-Za-z0-9]{34}"),
        judge=_random_looking,
        strict=False,
    ),
    Rule(
        id="sendgrid-key",
        pattern=_key(rb"SG\.", rb"[\w-]{16,32}\.[\w-]{16,64}|SG\.[\w=.-]{60,70}"),
        strict=False,
    ),
    Rule(id="twilio-key", pattern=BEFORE + rb"(SK[0-9a-f]{32})" + AFTER, judge=_random_looking, strict=False),
    Rule(
        id="mailgun-key",
        pattern=BEFORE + rb"(key-[0-9a-f]{32})" + AFTER,
        judge=_random_looking,
        strict=False,
    ),
    Rule(id="digitalocean-token", pattern=_key(rb"do[opr]_v1_", rb"[a-f0-9]{64}")),
    Rule(id="shopify-token", pattern=_key(rb"shp(?:at|ca|pa|ss)_", rb"[a-fA-F0-9]{32}")),
    Rule(id="vault-token", pattern=_key(rb"hv[bs]\.", rb"[\w-]{80,300}")),
    Rule(
        id="telegram-bot-token", pattern=BEFORE + rb"(\d{8,10}:AA[\w-]{33})" + rb"(?:$|[^\w-])", strict=False
    ),
    Rule(id="planetscale-token", pattern=_key(rb"pscale_(?:tkn|oauth|pw)_", rb"[\w=.-]{32,64}")),
    Rule(id="flyio-token", pattern=_key(rb"fo1_", rb"[\w-]{43}"), judge=_random_looking),
    Rule(
        id="flyio-macaroon",
        pattern=rb"(?:^|[^\w-])(fm[12][ar]?_[A-Za-z0-9+/]{60,}={0,3})",
        judge=_random_looking,
    ),
    Rule(id="square-secret", pattern=_key(rb"sq0csp-", rb"[\w\\\]-]{43}")),
    Rule(
        id="jfrog-identity-token",
        pattern=rb"(?i)(?:jfrog|artifactory|bintray|xray)" + ASSIGN + rb"([a-z0-9]{64})" + AFTER,
        judge=_random_looking,
    ),
    Rule(
        id="discord-client-secret",
        pattern=rb"(?i)discord" + ASSIGN + rb"([a-z0-9=_-]{32})" + AFTER,
        judge=lambda match: numbers.entropy(match.value) >= 2.0 and not match.value.isalpha(),
    ),
    Rule(
        id="sourcegraph-token",
        pattern=rb"(?i)sourcegraph" + ASSIGN + rb"([a-f0-9]{40})" + AFTER,
        judge=_random_looking,
    ),
    Rule(
        id="private-key",
        reach=512,
        pattern=rb"(-----BEGIN (?:[A-Z0-9]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
        rb"[\s\\nr\"',+>A-Za-z0-9/=:.-]{0,200}?[A-Za-z0-9+/]{40})",
    ),
    Rule(
        id="jwt",
        reach=4096,
        pattern=rb"(?:^|[^A-Za-z0-9])(eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{5,})",
        judge=_is_jwt,
        strict=False,
    ),
    Rule(
        id="password-in-url",
        pattern=_URL_WITH_USER + rb"([^\s:/@'\"<>]{10,128})@[\w.-]",
        trigger=_URL_WITH_USER + rb"[^\s:/@'\"<>]{10}",
        judge=_real_password,
        strict=False,
    ),
    Rule(
        id="card-number",
        number=True,
        kind="financial",
        pattern=rb"(?:^|[^\d.])"
        rb"([3-6]\d{3}(?:\d{9,12}|[ +-]\d{4}[ +-]\d{4}[ +-]\d{4}|[ +-]\d{6}[ +-]\d{5}))(?:$|[^\d])",
        judge=_card_in_context,
        strict=False,
    ),
    Rule(
        id="iban",
        number=True,
        kind="financial",
        pattern=BEFORE + rb"([A-Z]{2}\d{2}(?:[ +]?[A-Z0-9]{4}){2,7}(?:[ +]?[A-Z0-9]{1,3})?)" + AFTER,
        judge=lambda match: numbers.is_iban(match.value),
        strict=False,
    ),
    Rule(
        id="ethereum-address",
        kind="financial",
        pattern=BEFORE + rb"(0x[0-9a-fA-F]{40})" + AFTER,
        judge=lambda match: match.context.place == "query" and _random_looking(match),
        strict=False,
    ),
    Rule(
        id="seed-phrase",
        kind="financial",
        pattern=rb"(?i)(?:seed|mnemonic|recovery)[\w -]{0,16}['\"\s]{0,3}[=:][\s'\"]{0,4}"
        rb"((?:[a-z]{3,8}(?:[ +]|%20)){11,23}[a-z]{3,8})",
        judge=_seed_phrase,
        strict=False,
    ),
    *NAMED_RULES,
)

#: What stands somewhere near an account's number.
NUMBER_WORDS = (
    rb"(?i)card|credit|debit|cvv|cvc|visa|amex|billing|payment|payee|iban|sepa|bank|account|customer|invoice"
)

#: How a key begins. Where one is there but no whole key, its other part may stand in the next field.
KEY_START = (
    BEFORE + rb"(?:A[KS]IA|gh[oprsu]_|github_pat_|gl(?:pat|dt|rt)-|xox[abcdeoprs]-|xapp-|(?:sk|rk)[_-]|"
    rb"AIza|npm_|pypi-|SG\.|hf_|dckr_|shp|hvs\.|glsa_|ya29\.|eyJ[\w-]{8})"
)

#: Rules whose value is one long run of base64 digits; they are asked of each such run that is met.
RUN_RULES: tuple[Rule, ...] = (
    Rule(
        id="encoded-secret-key", pattern=rb"([A-Za-z0-9/+]{40,44})", judge=_hidden, strict=False, hidden=True
    ),
    Rule(
        id="wallet-private-key",
        kind="financial",
        pattern=rb"([5KL9c][1-9A-HJ-NP-Za-km-z]{50,51}|[xt]prv[1-9A-HJ-NP-Za-km-z]{107})",
        judge=_wallet_key,
    ),
    Rule(
        id="wallet-address",
        kind="financial",
        pattern=rb"(bc1[a-z0-9]{25,59}|[13][1-9A-HJ-NP-Za-km-z]{25,34})",
        judge=_wallet_address,
        strict=False,
    ),
)
