"""``bot-bottle verify``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from bot_bottle.legible import legible

if TYPE_CHECKING:
    from bot_bottle.verify.battery import Report, Tried


@click.command("verify")
@click.option("--backend", "backend_name", default="", help="The backend whose bottle is attacked.")
@click.option("--only", multiple=True, metavar="LINE", help="Run one line (B10) or family (B) alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, backend_name: str, only: tuple[str, ...], as_json: bool) -> int:
    """Attack a bottle of this machine from inside, and show what held.

    No key and no network are needed, and nothing of yours is read or changed. Exit code 0 only if every
    attack that was made was held.
    """
    import os  # noqa: PLC0415

    from bot_bottle.backend.registry import choose_backend  # noqa: PLC0415
    from bot_bottle.cli.output import print_json  # noqa: PLC0415
    from bot_bottle.operator_config import load_operator_config  # noqa: PLC0415
    from bot_bottle.verify.battery import run_battery  # noqa: PLC0415

    backend, why = choose_backend(backend_name, os.environ, load_operator_config().backend)
    if as_json:
        report = run_battery(backend, lambda _one: None, only)
        print_json(_as_json(report))
    else:
        print(f"bot-bottle verify: attacks from inside a bottle ({backend.name}, {why})", flush=True)
        print(f"boundary: {backend.boundary}", flush=True)
        print(f"attacks run as: {backend.accounts}\n", flush=True)
        print(f"{'id':<7} {'verdict':<9} {'s':>4}  attack", flush=True)
        report = run_battery(backend, _print_line, only)
        _print_end(report, only)
    return 0 if report.holds else 1


def _print_line(one: Tried) -> None:

    case, finding = one.case, one.finding
    print(f"{case.id:<7} {finding.verdict:<9} {one.seconds:>4.1f}  {case.title}")
    print(f"{'':<24}expected: {case.expected}")
    print(f"{'':<24}seen: {legible(finding.seen)}", flush=True)


def _print_end(report: Report, only: tuple[str, ...]) -> None:
    counts = Counter(one.finding.verdict for one in report.tried)
    if report.whole:
        print("\nEvery address was the sinkhole's: whatever left, to anywhere, was seen.")
    else:
        print("\nThe sinkhole has some addresses only; what has no name was judged by the kernel's answer.")
    if not only:
        print(f"Not tried here, but in the project's own tests: {', '.join(report.elsewhere)}")
    print("Not prevented, here or at all (docs/security.md says more):")
    for sentence in report.not_prevented:
        print(f"  - {sentence}")
    told = ", ".join(
        f"{counts[verdict]} {verdict}" for verdict in ("held", "NOT HELD", "not run") if counts[verdict]
    )
    print(f"\n{told} ({report.seconds:.0f} s); nothing was left behind")


def _as_json(report: Report) -> dict[str, object]:
    return {
        "backend": report.backend,
        "boundary": report.boundary,
        "accounts": report.accounts,
        "every_address": report.whole,
        "holds": report.holds,
        "seconds": round(report.seconds, 1),
        "attacks": [
            {
                "id": one.case.id,
                "attack": one.case.title,
                "expected": one.case.expected,
                "verdict": one.finding.verdict.lower(),
                "seen": one.finding.seen,
                "seconds": round(one.seconds, 2),
            }
            for one in report.tried
        ],
        "elsewhere": list(report.elsewhere),
        "not_prevented": list(report.not_prevented),
    }
