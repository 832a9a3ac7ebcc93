"""``bot-bottle sbom``."""

from __future__ import annotations

import click

from bot_bottle.words import counted


@click.command("sbom")
@click.option("--check", is_flag=True, help="Compare the installed files with what was installed, in place.")
@click.option("--json", "as_json", is_flag=True, help="With --check: print JSON.")
def command(*, check: bool, as_json: bool) -> int:
    """Print what this installation is made of, as a CycloneDX document.

    With --check, name each file that is not as its installer left it; exit code 1 where there is one.
    """
    import importlib.metadata  # noqa: PLC0415

    from bot_bottle.cli.output import print_json, print_table  # noqa: PLC0415
    from bot_bottle.errors import UnavailableError  # noqa: PLC0415
    from bot_bottle.sbom import bill, changed_files, packages  # noqa: PLC0415

    try:
        found = packages()
    except importlib.metadata.PackageNotFoundError:
        raise UnavailableError(
            "bot-bottle runs here without having been installed, so nothing says what it is made of; "
            "install it: pip install ."
        ) from None
    if not check:
        print_json(bill(found))
        return 0
    changed = list(changed_files(found))
    if as_json:
        print_json([{"package": one.package, "file": one.file, "how": one.how} for one in changed])
    elif changed:
        print_table(["package", "file", "how"], [(one.package, one.file, one.how) for one in changed])
    else:
        print(f"{counted(len(found), 'package')}: every file is as it was installed")
    return 1 if changed else 0
