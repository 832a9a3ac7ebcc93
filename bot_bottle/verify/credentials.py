"""C1-C7: the credential that egress adds, stolen, misused or found."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import TYPE_CHECKING

from bot_bottle.verify import inside
from bot_bottle.verify.case import Case, Finding, broken, held, new_mark, not_run
from bot_bottle.verify.processes import all_processes, holds, own_sidecars
from bot_bottle.verify.stage import ALLOWED, API, PLACEHOLDER, TOKEN_HOSTS

if TYPE_CHECKING:
    from bot_bottle.demo.upstreams import Seen
    from bot_bottle.verify.stage import Stage

_FORMS = """
P = os.environ["API_TOKEN"]
def forms(mark):
    "Where and how the placeholder is written: target and headers."
    import base64
    basic = base64.b64encode(f"me:{P}".encode()).decode()
    return {
        "authorization": (f"/{mark}-0", f"Authorization: Bearer {P}\\r\\n"),
        "basic": (f"/{mark}-1", f"Authorization: Basic {basic}\\r\\n"),
        "other header": (f"/{mark}-2", f"X-Anything: {P}\\r\\n"),
        "cookie": (f"/{mark}-3", f"Cookie: a={P}\\r\\n"),
        "query": (f"/{mark}-4?key={P}", ""),
        "path": (f"/{mark}-5/{P}", ""),
        "hex": (f"/{mark}-6", f"X-Hex: {P.encode().hex()}\\r\\n"),
    }
"""


def _misplaced(stage: Stage) -> Finding:
    """A placeholder elsewhere than at its own host."""
    mark = new_mark("c1")
    code = (
        f"{_FORMS}\ntold = {{name: reason(attempt(request, host, target, headers=headers))"
        " for name, (target, headers) in forms(mark).items()}\ntell(**told)"
    )
    told = inside.run(stage.bottle, code, host=ALLOWED, mark=mark)
    if stage.outside.arrived(mark):
        return broken(f"arrived: {stage.outside.arrived(mark)[0]}")
    other = {name: end for name, end in told.items() if end != "placeholder_misplaced"}
    if other:
        return broken(f"{other}")
    return held(f"{len(told)} places: placeholder_misplaced, nothing arrived")


def _replaced(stage: Stage) -> Finding:
    """At its own host it stands for nothing where it is written: the route's own header is added, once."""
    mark = new_mark("c2")
    code = (
        f"{_FORMS}\ntold = {{name: attempt(request, host, target, headers=headers).split(' ')[1]"
        " for name, (target, headers) in forms(mark).items()}\ntell(**told)"
    )
    told = inside.run(stage.bottle, code, host=API, mark=mark)
    seen = _seen(stage, mark)
    if len(seen) != len(told):
        return broken(f"{len(seen)} of {len(told)} requests arrived: {told}")
    token = stage.token.encode()
    if any(one.values("authorization") != [f"Bearer {stage.token}"] for one in seen):
        return broken("upstream did not see exactly the route's own header")
    if any(one.raw.count(token) != 1 for one in seen):
        return broken("the token was put somewhere else as well")
    return held(f"{len(seen)} requests, the token once in each, in the route's own header")


_OWN_HEADERS = {
    "bearer": "Authorization: Bearer attacker",
    "basic": "Authorization: Basic YXR0YWNrZXI=",
    "two": "Authorization: Bearer attacker\r\nAuthorization: Basic YTpi",
    "api key": "x-api-key: attacker",
    "google key": "x-goog-api-key: attacker",
    "gitlab token": "PRIVATE-TOKEN: attacker",
    "proxy authorization": "Proxy-Authorization: Basic YXR0YWNrZXI=",
    "named by Connection": "Connection: Authorization, X-Api-Key\r\nX-Api-Key: attacker",
    "underscore": "x_api_key: attacker",
}


def _stripped(stage: Stage) -> Finding:
    mark = new_mark("c4")
    code = (
        "tell(**{name: attempt(request, host, f'/{mark}', headers=header + '\\r\\n').split(' ')[1]"
        " for name, header in headers.items() for host in hosts})"
    )
    inside.run(stage.bottle, code, hosts=[API, ALLOWED], headers=_OWN_HEADERS, mark=mark)
    seen = _seen(stage, mark)
    if len(seen) != 2 * len(_OWN_HEADERS):
        return broken(f"{len(seen)} of {2 * len(_OWN_HEADERS)} requests arrived")
    if any(b"attacker" in one.raw or b"YXR0YWNrZXI=" in one.raw for one in seen):
        return broken("the agent's own credential left")
    for one in seen:
        if one.values("authorization") != ([f"Bearer {stage.token}"] if one.host == API else []):
            return broken(f"{one.host} saw {len(one.values('authorization'))} Authorization headers")
    return held(f"{len(seen)} requests: the route's own credential alone, or none")


def _echoed(stage: Stage) -> Finding:
    """Servers that repeat a request show the agent its own words and nothing of the credential."""
    mark = new_mark("c3")
    code = """
answers = [attempt(request, host, f"/{mark}?key=mine", headers="Range: bytes=0-9\\r\\n") for host in hosts]
answers += [attempt(request, host, f"/{mark}", method="TRACE") for host in hosts]
tell(answers=answers)
"""
    answers = inside.run(stage.bottle, code, hosts=sorted(TOKEN_HOSTS - {API}), mark=mark)["answers"]
    count = sum(stage.token.encode() in one.raw for one in _seen(stage, mark))
    if count != len(TOKEN_HOSTS) - 1:
        return broken(f"{count} of {len(TOKEN_HOSTS) - 1} servers saw the token")
    text, value = "".join(answers), stage.token.encode()
    forms = (
        stage.token,
        base64.b64encode(value).decode()[4:-4],
        value.hex(),
        stage.token[::-1],
        stage.token[7:],
    )
    if any(form in text for form in forms):
        return broken("an echo shows the token")
    return held(f"{text.count('*' * len(value))} echoes overwritten")


def _where_it_went(stage: Stage) -> Finding:
    """Of all hosts of the whole run, who saw the token, and over what."""
    token = stage.token.encode()
    with_token = [one for one in stage.outside.seen if token in one.raw + one.body]
    wrong = [one for one in with_token if not one.tls or one.sni not in TOKEN_HOSTS]
    if wrong:
        return broken(f"{wrong[0].host or wrong[0].local} saw it, TLS: {wrong[0].tls}")
    if not with_token:
        return broken("no host saw the token at all, so this proves nothing")
    return held(
        f"{len(with_token)} of {len(stage.outside.seen)} requests carried it, over TLS to its routes' hosts"
    )


_SEARCH = """
env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null
find / -xdev \\( -path /proc -o -path /usr \\) -prune -o -type f -exec cat {} + 2>/dev/null
find /home /tmp /run /etc /dev/shm -type f -exec cat {} + 2>/dev/null
"""


def _inside_files(stage: Stage) -> Finding:
    done = stage.bottle.exec(_SEARCH, timeout=inside.PATIENCE)
    everything = done.stdout + done.stderr
    if PLACEHOLDER.encode() not in everything:
        return broken("the search did not find what is there, so it proves nothing")
    if stage.token.encode() in everything:
        return broken("the token is inside")
    if b"PRIVATE KEY" in everything:
        return broken("a private key is inside")
    return held(
        f"{len(everything) // 1024} KiB of files, environments, arguments searched; no key of the CA either"
    )


#: Searches all memory that can be read for ``first + second``; tells whose it is in, and how much was read.
MEMORY = """
found, read = [], 0
for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                span, mode = line.split()[:2]
                if "r" in mode and "[v" not in line:
                    start, end = (int(part, 16) for part in span.split("-"))
                    try:
                        memory.seek(start)
                        data = memory.read(end - start)
                    except (OSError, OverflowError):
                        continue
                    read += len(data)
                    # Put together here, so that this script does not find itself.
                    if int(pid) != os.getpid() and (first + second).encode() in data:
                        found.append(pid)
    except OSError:
        pass
tell(found=found, read=read)
"""


def _inside_memory(stage: Stage) -> Finding:
    told = inside.run(stage.bottle, MEMORY, first=stage.token[:14], second=stage.token[14:])
    if told["found"]:
        return broken(f"in the memory of {told['found']}")
    return held(f"{told['read'] // 1024} KiB of readable memory searched")


def _on_the_host(stage: Stage) -> Finding:
    """The state folder, the audit log, and every process's arguments and, where readable, environment."""
    needle = stage.token.encode()
    home = stage.plan.audit_path.parent.parent
    files = [path for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
    found = [str(path) for path in files if holds(path, needle)]
    processes = all_processes()
    found += [
        str(path / name)
        for path in processes
        for name in ("cmdline", "environ")
        if holds(path / name, needle)
    ]
    if stage.plan.audit_path not in files:
        return broken("the audit log is not where it is searched, so this proves nothing")
    if found:
        return broken(f"in {found[0]}")
    return held(f"{len(files)} files and {len(processes)} processes searched")


def _authority(stage: Stage) -> Finding:
    """The CA inside: its certificate alone, which cannot be replaced."""
    script = (
        'for file in "$NODE_EXTRA_CA_CERTS" "$SSL_CERT_FILE"; do'
        ' (echo x > "$file"; rm -f "$file"; mv "$file" /tmp/; ln -sf /tmp/x "$file") 2>/dev/null; done;'
        ' cat "$NODE_EXTRA_CA_CERTS"'
    )
    content = stage.bottle.exec(script, timeout=inside.PATIENCE).stdout
    if b"BEGIN CERTIFICATE" not in content:
        return broken("the CA's certificate was replaced from inside")
    return held(f"read-only; certificate file SHA-256 {hashlib.sha256(content).hexdigest()[:16]}…")


def _core_dumps(stage: Stage) -> Finding:
    """The sidecar's limits and whether others may read it, where it is a process of this machine."""
    del stage
    for path in own_sidecars():
        limits = (path / "limits").read_text().splitlines()
        core = next(line for line in limits if line.startswith("Max core file size"))
        if core.split()[4:6] != ["0", "0"]:
            return broken(f"the sidecar may write a core file: {core}")
        # What is not dumpable belongs to root in /proc (proc(5)), who is nobody in a user namespace.
        if os.getuid() != 0 and (path / "mem").stat().st_uid == os.getuid():
            return broken("the sidecar can be traced")
        return held("no core file, and not dumpable")
    return not_run("the sidecar is no process of this account on this machine")


def _seen(stage: Stage, mark: str) -> list[Seen]:
    return [one for one in stage.outside.seen if mark in one.target]


CASES = (
    Case(
        id="C1",
        title="the placeholder sent to another host, 7 places",
        expected="refused, on record",
        run=_misplaced,
    ),
    Case(
        id="C2",
        title="the placeholder written anywhere in a request",
        expected="replaced nowhere",
        run=_replaced,
    ),
    Case(
        id="C3",
        title="servers that repeat the request; TRACE",
        expected="overwritten in the answer",
        run=_echoed,
    ),
    Case(id="C4", title="the agent's own credential headers", expected="stripped", run=_stripped),
    Case(
        id="C6",
        title="the token in files, environments, arguments inside",
        expected="nowhere",
        run=_inside_files,
    ),
    Case(
        id="C6", title="the token in memory that the agent can read", expected="nowhere", run=_inside_memory
    ),
    Case(
        id="C6", title="the token in state, record, arguments outside", expected="nowhere", run=_on_the_host
    ),
    Case(id="C6", title="a core dump or a debugger at the sidecar", expected="impossible", run=_core_dumps),
    Case(id="C7", title="replacing the CA", expected="read-only", run=_authority),
)

#: Judged once everything else has run.
LAST = (
    Case(
        id="C5",
        title="every host that ever saw the token",
        expected="its routes' hosts, over TLS",
        run=_where_it_went,
    ),
)
