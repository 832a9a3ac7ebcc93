"""``bot-bottle doctor``."""

from __future__ import annotations

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, as_json: bool) -> int:
    """Try every backend and look over the installation; each fault comes with the command that mends it.

    Exit code 0 if at least one backend works, 3 if none does.
    """
    from bot_bottle.checkup import examine  # noqa: PLC0415
    from bot_bottle.cli.output import print_json  # noqa: PLC0415
    from bot_bottle.cli.terminal import current_folder  # noqa: PLC0415
    from bot_bottle.legible import legible  # noqa: PLC0415

    findings = examine(current_folder())
    if as_json:
        print_json(
            [
                {"kind": f.kind, "name": f.name, "level": f.level, "detail": f.detail, "remedy": f.remedy}
                for f in findings
            ]
        )
    else:
        for finding in findings:
            print(legible(f"{finding.level:<12} {finding.kind} {finding.name}: {finding.detail}"))
            if finding.remedy:
                print(f"{'':<12} -> {finding.remedy}")
    usable = any(f.kind == "backend" and f.level != "unavailable" for f in findings)
    return 0 if usable else 3
