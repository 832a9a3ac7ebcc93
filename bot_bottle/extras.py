"""By which command a package of one of our extras comes into the environment that runs.

Never by our own name from an index: we come from our source, and that name is nobody's promise there.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
import sys
from pathlib import Path

DISTRIBUTION = "bot-bottle"

_OF_EXTRA = re.compile(r"""extra\s*==\s*["']([a-z]+)["']""")


def install_command(extra: str) -> str:
    """Give the shell command that installs what the extra called ``extra`` needs, for this environment."""
    return shlex.join([*_installer(Path(sys.prefix)), *requirements(extra)])


def requirements(extra: str) -> tuple[str, ...]:
    """Give the requirements of ``extra`` as this installation declares them, without their markers."""
    try:
        declared = importlib.metadata.requires(DISTRIBUTION) or ()
    except importlib.metadata.PackageNotFoundError:  # run from its source; that folder knows
        return (f".[{extra}]",)
    found = []
    for line in declared:
        requirement, _, marker = line.partition(";")
        if extra in _OF_EXTRA.findall(marker):
            found.append(requirement.strip())
    return tuple(found)


def _installer(prefix: Path) -> list[str]:
    # Both leave a file of their own in each environment that they make, and rule it by their own commands.
    if (prefix / "pipx_metadata.json").exists():
        return ["pipx", "inject", DISTRIBUTION]
    if (prefix / "uv-receipt.toml").exists() or importlib.util.find_spec("pip") is None:
        return ["uv", "pip", "install", "--python", sys.executable]
    return [sys.executable, "-P", "-m", "pip", "install"]
