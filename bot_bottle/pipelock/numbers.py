"""Numbers that prove themselves: card, bank account and wallet formats have checksums, tokens entropy."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUE = {char: index for index, char in enumerate(_BASE58)}
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

#: IBAN lengths by country (ISO 13616 registry).
_IBAN_LENGTH = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29,
    "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26,
    "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip


def entropy(value: bytes) -> float:
    """Give Shannon's entropy of ``value`` in bits per byte."""
    total = len(value)
    return -sum(n / total * math.log2(n / total) for n in Counter(value).values()) if total else 0.0


def is_card_number(text: bytes) -> bool:
    """Tell a payment card number: a known issuer's prefix and length, and Luhn's sum (ISO/IEC 7812-1)."""
    digits = [char - 48 for char in text if 48 <= char <= 57]
    number = bytes(digit + 48 for digit in digits).decode("ascii")
    if len(set(number)) < 2 or not _is_issued(number):
        return False
    total = sum(digits[-1::-2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return total % 10 == 0


def _is_issued(number: str) -> bool:
    size, two, four = len(number), int(number[:2] or 0), int(number[:4] or 0)
    if number.startswith("4"):
        return size in {13, 16, 19}
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return size == 16
    if two in {34, 37}:
        return size == 15
    if two in {36, 38} or 300 <= four // 10 <= 305:
        return size == 14
    return size == 16 and (four == 6011 or two == 65 or 3528 <= four <= 3589)


def is_iban(text: bytes) -> bool:
    """Tell an international bank account number: its country's length and its remainder (ISO 7064)."""
    compact = text.translate(None, b" +").decode("ascii").upper()
    if _IBAN_LENGTH.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def base58check(text: bytes) -> bytes | None:
    """Decode Base58Check (Bitcoin keys, addresses): the payload, ``None`` where the checksum disagrees."""
    value = 0
    for char in text:
        digit = _BASE58_VALUE.get(char)
        if digit is None:
            return None
        value = value * 58 + digit
    zeros = len(text) - len(text.lstrip(b"1"))
    raw = b"\0" * zeros + value.to_bytes((value.bit_length() + 7) // 8, "big")
    payload, check = raw[:-4], raw[-4:]
    expected = hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    return payload if payload and expected == check else None


def is_wallet_key(text: bytes) -> bool:
    """Tell a wallet's private key: Bitcoin WIF (version 0x80 or 0xEF) or a BIP-32 extended private key."""
    payload = base58check(text)
    if payload is None:
        return False
    if len(payload) in {33, 34}:
        return payload[0] in {0x80, 0xEF}
    return len(payload) == 78 and payload[:4] in {b"\x04\x88\xad\xe4", b"\x04\x35\x83\x94"}


def is_wallet_address(text: bytes) -> bool:
    """Tell a Bitcoin address: Base58Check of a 20-byte hash, or Bech32 (BIP 173, BIP 350)."""
    if text[:3].lower() == b"bc1":
        return _bech32_agrees(text.decode("ascii").lower())
    payload = base58check(text)
    return payload is not None and len(payload) == 21 and payload[0] in {0x00, 0x05}


def _bech32_agrees(text: str) -> bool:
    prefix, _one, data = text.rpartition("1")
    if any(char not in _BECH32 for char in data):
        return False
    values = [ord(char) >> 5 for char in prefix] + [0] + [ord(char) & 31 for char in prefix]
    values += [_BECH32.index(char) for char in data]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check in {1, 0x2BC830A3}
