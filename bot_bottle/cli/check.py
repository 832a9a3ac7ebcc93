"""``bot-bottle check [PATH...]``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot_bottle.cli import terminal
from bot_bottle.cli.output import print_json
from bot_bottle.words import counted

if TYPE_CHECKING:
    from bot_bottle.manifest.check import Report

_EXIT_PROBLEMS = 2


@click.command("check")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, paths: tuple[Path, ...], as_json: bool) -> int:
    """Check bottles, agents and routes files without launching anything.

    Without PATH, all that a start in this folder would read. Each mistake is one line,
    FILE:LINE:COLUMN: KEY: what is wrong; what to write instead. Exit code 2 if there is any.
    """
    from bot_bottle.manifest.check import check_declared, check_path  # noqa: PLC0415

    reports = [check_path(path) for path in paths] or [check_declared(terminal.current_folder())]
    files = {file for report in reports for file in report.files}
    problems = list(dict.fromkeys(problem for report in reports for problem in report.problems))
    if as_json:
        print_json(
            {
                "ok": not problems,
                "files": sorted(str(file) for file in files),
                "problems": [asdict(problem) for problem in problems],
                "warnings": list(_warnings(reports)),
            }
        )
    else:
        terminal.warn(_warnings(reports))
        for line in dict.fromkeys(
            str(problem) for problem in problems
        ):  # one cause of many files is one line
            print(line)
        broken = len({problem.file for problem in problems})
        are = "file is" if len(files) == 1 else "files are"
        print(
            f"{len(problems)} to mend in {broken} of {counted(len(files), 'file')}"
            if problems
            else f"{len(files)} {are} right"
        )
        if not files:
            print("nothing is declared here yet; write a first agent with: bot-bottle init")
    return _EXIT_PROBLEMS if problems else 0


def _warnings(reports: list[Report]) -> dict[str, None]:
    return dict.fromkeys(warning for report in reports for warning in report.warnings)
