"""Reading a home full of manifests: 100 bottles, each extending others, and 100 agents."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Table, median
from bot_bottle.manifest.model import Manifest

COUNT = 100
BOUND_MS = 150.0

_BASE = """---
env: {EDITOR: vi, GREETING: '${HOST_GREETING}'}
agent_provider: {auth_token: OAUTH_TOKEN}
git: {user: {name: Some One, email: someone@example.com}}
limits: {memory: 4GiB, pids: 512}
---
"""
_BOTTLE = """---
extends: base
env: {NUMBER: "%(number)d"}
egress:
  add_routes:
    - host: api%(number)d.example.com
      path_allowlist: [/v1/, /v2/]
      methods: [GET, POST]
      auth: {scheme: Bearer, token_ref: API_TOKEN}
    - host: docs%(number)d.example.com
      methods: [GET, HEAD]
---
What number %(number)d may do.
"""
_AGENT = """---
bottle: bottle-%(number)d
skills: [review]
git: {user: {name: Bot %(number)d}}
---
You do what is asked and run the tests before you say you are done.
"""

#: What a fresh process does: the interpreter, the imports, the reading.
_FRESH = """
import sys
from pathlib import Path
from bot_bottle.manifest.model import Manifest
manifest = Manifest.resolve(Path("/"), Path(sys.argv[1]))
sys.exit(bool(manifest.broken_files))
"""
_NOTE = (
    "Medians of %d rounds in alternation. A fresh process pays for the interpreter and for importing the "
    "libraries that check; the row below it is that price alone."
)
_IMPORTS = "import bot_bottle.manifest.loader"


def write_home(base: Path) -> None:
    """Write the manifests to measure with."""
    for folder in (base, base / "bottles", base / "agents"):
        folder.mkdir(mode=0o755, exist_ok=True)
    files = {base / "bottles" / "base.md": _BASE}
    for number in range(COUNT):
        if number:
            files[base / "bottles" / f"bottle-{number}.md"] = _BOTTLE % {"number": number}
        files[base / "agents" / f"agent-{number}.md"] = _AGENT % {"number": number or 1}
    for path, text in files.items():
        path.write_text(text)
        path.chmod(0o644)


def measure(*, rounds: int = 15) -> Table:
    """Measure reading within a process, and whole fresh processes beside those that only import."""
    table = Table(
        title=f"Loading {2 * COUNT} bottles and agents",
        columns=("what", "median ms", "bound ms"),
        notes=[_NOTE % rounds],
    )
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        write_home(home)
        manifest = Manifest.resolve(Path("/"), home)
        if manifest.broken_files or len(manifest.bottles) + len(manifest.agents) != 2 * COUNT:
            raise RuntimeError(f"the manifests to measure with do not load: {manifest.broken_files}")
        times: dict[str, list[float]] = {"read": [], "fresh": [], "import": [], "nothing": []}
        for _ in range(rounds):
            begin = time.perf_counter()
            Manifest.resolve(Path("/"), home)
            times["read"].append(time.perf_counter() - begin)
            times["fresh"].append(_process(_FRESH, name))
            times["import"].append(_process(_IMPORTS))
            times["nothing"].append(_process(""))
    middle = {what: median(values) * 1000 for what, values in times.items()}
    table.add("read, in a process that has read before", f"{middle['read']:.0f}", f"{BOUND_MS:.0f}")
    table.add(
        "read, without the price of imports", f"{middle['fresh'] - middle['import']:.0f}", f"{BOUND_MS:.0f}"
    )
    table.add("a fresh process that reads", f"{middle['fresh']:.0f}", "")
    table.add("a fresh process that only imports", f"{middle['import']:.0f}", "")
    table.add("a fresh process that does nothing", f"{middle['nothing']:.0f}", "")
    return table


def _process(code: str, *arguments: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=dict(os.environ))
    return time.perf_counter() - begin


if __name__ == "__main__":
    print(measure().markdown())
