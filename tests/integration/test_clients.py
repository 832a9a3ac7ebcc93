"""Ordinary clients of this machine reach an allowed host from a bottle as they are, trusting its CA."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.outside import alone_in_cache, new_marker

if TYPE_CHECKING:
    from tests.support.lab import Lab
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

# Each asks a host named after it; what it makes of the scripted answer does not matter, that it asked does.
CLIENTS = {
    "curl": "curl -sS https://HOST/",
    "git": "git ls-remote https://HOST/x.git",
    "openssl": "echo | openssl s_client -verify_return_error -connect HOST:443 -servername HOST",
    "node": "node -e 'fetch(\"https://HOST/\").then(r => r.text())'",
    "npm": "npm view x --registry https://HOST/ --cache /tmp/npm",
    "wget": "wget -q -O- https://HOST/",
    "go": (
        "mkdir go && cd go && export GOFLAGS=-mod=mod GOPROXY=https://HOST GONOSUMDB='*' GOPATH=/tmp/go "
        "GOCACHE=/tmp/gocache && go mod init x && go get example.test/y@v1.0.0"
    ),
    "java": (
        "printf %s 'class A { public static void main(String[] a) throws Exception { "
        'new java.net.URL("https://HOST/").openStream().readAllBytes(); } }\' >A.java && java A.java'
    ),
    "cargo": (
        "mkdir c && cd c && export CARGO_HOME=/tmp/cargo && cargo init --name x && "
        "printf '[registries.r]\\nindex = \"sparse+https://HOST/\"\\n' >.cargo.toml && "
        "cargo --config .cargo.toml search --registry r x"
    ),
    "dotnet": "dotnet nuget search x --source https://HOST/v3/index.json",
    "pip": "PYTHON -m pip download --no-cache-dir --retries 0 --index-url https://HOST/simple x",
    "urllib": "PYTHON -c 'import urllib.request as u; u.urlopen(\"https://HOST/\").read()'",
    "requests": "PYTHON -c 'import requests; requests.get(\"https://HOST/\")'",
    "httpx": "PYTHON -c 'import httpx; httpx.get(\"https://HOST/\")'",
    "uv": "uv --no-cache pip install --target x --index-url https://HOST/simple x",
}
PYTHON_CLIENTS = frozenset({"urllib", "requests", "httpx"})


#: Clients whose own end tells too: what the scripted host answers is all that they want.
CONTENT = frozenset({"curl", "wget", "node", "java", "openssl", *PYTHON_CLIENTS})
#: From the Python registry, once, into the cache of downloads.
PACKAGES = ("pip", "requests", "httpx", "uv")


def test_clients_just_work(lab: Lab, world: World) -> None:
    domain = f"{new_marker('clients')}.example.test"
    lab.declare(
        "clients",
        "agent_provider: {template: command, argv: [/bin/true]}\n"
        f"egress: {{routes: [{{host: '*.{domain}'}}]}}\n",
    )
    missing: list[str] = []
    failed: dict[str, str] = {}
    with lab.launch("clients") as bottle:
        packages = _packages()
        if packages is not None:
            bottle.cp_in(packages, "/home/agent/lib")
        cargo = _cargo()
        if cargo is not None:
            bottle.cp_in(cargo, "/home/agent/.local/bin/cargo")
        ready = "export PYTHONPATH=$HOME/lib PATH=$PATH:$HOME/lib/bin:/usr/local/go/bin; "
        for name, script in CLIENTS.items():
            host = f"{name}.{domain}"
            if bottle.sh(ready + _look(name, lab.inside_python)).returncode != 0:
                missing.append(name)
                continue
            run = script.replace("HOST", host).replace("PYTHON", lab.inside_python)
            done = bottle.sh(f"{ready} cd $(mktemp -d); {run}", timeout=120)
            # A handshake by itself is no request, and ends well only where the certificate is trusted.
            asked = name == "openssl" or any(seen.sni == host for seen in world.records().requests)
            if not asked or (name in CONTENT and done.returncode):
                failed[name] = done.out[-300:] + done.err[-600:]
    print(f"not in this bottle: {missing}")
    assert failed == {}
    assert not {"curl", "urllib"} & set(missing)


def _look(name: str, python: str) -> str:
    if name in PYTHON_CLIENTS | {"pip"}:
        return f"{python} -c 'import {'urllib.request' if name == 'urllib' else name}'"
    return f"command -v {name}"


def _packages() -> Path | None:
    """Install :data:`PACKAGES` unless they are there; None where that fails."""
    with alone_in_cache("python-clients") as target:
        if not target.exists():
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(partial), *PACKAGES]
            if subprocess.run(pip, capture_output=True, timeout=120, check=False).returncode != 0:
                return None
            partial.rename(target)
    return target


def _cargo() -> Path | None:
    """Find the program behind rustup's, which a bottle cannot use without all that rustup keeps."""
    rustup = shutil.which("rustup")
    if rustup is None:
        return None
    found = subprocess.run([rustup, "which", "cargo"], capture_output=True, text=True, check=False)
    path = Path(found.stdout.strip() or "/nowhere")
    return path if path.is_file() else None
