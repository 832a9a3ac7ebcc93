"""Ask whether what is pinned has known holes: ``python -m tests.tools.audit`` (``make audit``).

pip-audit asks the advisory database of the package index; it is installed into a folder of its own.
Exit code 0 where nothing is known or nobody could be asked (which is said), 1 where a hole is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PINS = ("requirements/dev.txt", "requirements/machines.txt", "requirements/fuzz.txt")
_SECONDS = 300.0


def main() -> int:
    """Print each known hole in a line, or that there is none, or why it is not known."""
    with tempfile.TemporaryDirectory(prefix="bot-bottle-audit-") as folder:
        reason, answer = _ask(Path(folder))
    if answer is None:
        print(f"nothing was audited: the advisory database cannot be reached from here ({reason})")
        return 0
    lines, code = report(answer)
    print("\n".join(lines))
    return code


def report(answer: dict[str, Any]) -> tuple[list[str], int]:
    """Put pip-audit's JSON into lines, and give the exit code that they mean."""
    packages = answer["dependencies"]
    skipped = [package for package in packages if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {hole['id']}"
        + (f", mended in {', '.join(hole['fix_versions'])}" if hole["fix_versions"] else ", not mended yet")
        for package in packages
        for hole in package.get("vulns", ())
    ]
    code = 1 if lines else 0
    if skipped and len(skipped) == len(packages):
        why = skipped[0]["skip_reason"]
        lines.append(f"nothing was audited: the advisory database cannot be reached from here ({why})")
    elif skipped:
        lines.append(f"not asked: {len(skipped)} of {len(packages)} ({skipped[0]['skip_reason']})")
    if len(skipped) < len(packages):
        lines.append(f"{len(packages) - len(skipped)} pinned packages asked after")
    return lines, code


def _ask(folder: Path) -> tuple[str, dict[str, Any] | None]:
    """Run pip-audit; gives its answer, or the reason why there is none."""
    try:
        venv.create(folder / "venv", with_pip=True)
        pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "-q", "--no-input"]
        pip += ["--disable-pip-version-check", "--require-hashes", "-r", "requirements/audit.txt"]
        done = subprocess.run(pip, cwd=ROOT, capture_output=True, timeout=_SECONDS, check=False)
        if done.returncode != 0:
            return f"pip-audit cannot be installed here ({_last_line(done.stderr)})", None
        argv = [str(folder / "venv" / "bin" / "pip-audit"), "--disable-pip", "--require-hashes"]
        argv += ["--format", "json", "--progress-spinner", "off", "--cache-dir", str(folder / "cache")]
        argv += [part for name in _PINS for part in ("--requirement", name)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS:.0f} s", None
    try:
        return "", json.loads(done.stdout)
    except ValueError:
        return f"pip-audit got no answer ({_last_line(done.stderr)})", None


def _last_line(text: bytes) -> str:
    return (text.decode(errors="replace").strip().splitlines() or ["no words"])[-1][:200]


if __name__ == "__main__":
    sys.exit(main())
