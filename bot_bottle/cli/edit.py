"""``bot-bottle edit NAME``."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

import click

from bot_bottle import paths, process
from bot_bottle.cli import complete, terminal
from bot_bottle.errors import ManifestError, UsageError

_EDITORS = ("VISUAL", "EDITOR")
_USUAL_EDITOR = "vi"


@click.command("edit")
@click.argument("name", shell_complete=complete.agents_and_bottles)
@click.option("--bottle", "as_bottle", is_flag=True, help="Edit the bottle where an agent has that name too.")
def command(*, name: str, as_bottle: bool) -> int:
    """Edit the agent or the bottle NAME with $VISUAL or $EDITOR, and check it.

    The old file stays until the new text is right; a text that is not is kept, and the last line says where.
    """
    from bot_bottle.manifest.files import ManifestFolder  # noqa: PLC0415

    path = _file(name, as_bottle=as_bottle)
    old = ManifestFolder(path=path.parent).read(path)
    folder = Path(tempfile.mkdtemp(prefix="bot-bottle-edit-"))
    draft = folder / path.name
    draft.write_bytes(old.encode())
    try:
        outcome = _edit(path, draft, old)
    except BaseException as error:
        if draft.exists() and draft.read_bytes() != old.encode():
            terminal.say([f"bot-bottle: {path} is as it was; your text is in {draft}"])
        else:
            shutil.rmtree(folder)
        if isinstance(error, OSError):
            raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
        raise
    if outcome:
        terminal.say([f"bot-bottle: {outcome}; your text is in {draft}"])
        return ManifestError.exit_code
    shutil.rmtree(folder)
    return 0


def _edit(path: Path, draft: Path, old: str) -> str:
    """Edit until the text is right and put it in place; gives why that did not come to be, or ``""``."""
    from bot_bottle.files import write_atomic  # noqa: PLC0415
    from bot_bottle.manifest.files import ManifestFolder, decode  # noqa: PLC0415

    while True:
        status = process.run_attached([*_editor(), str(draft)])
        if status:
            return f"the editor ended with exit code {status} and {path} is as it was"
        try:
            text = decode(draft.read_bytes(), draft)
            right = _is_right(path, text)
        except (ManifestError, OSError) as error:
            terminal.say([str(error)])
            right = False
        if right:
            break
        if not terminal.is_interactive() or not terminal.confirm("Edit it again?", usual=True):
            return f"{path} is as it was"
    if text == old:
        terminal.say([f"bot-bottle: nothing was changed in {path}"])
        return ""
    if ManifestFolder(path=path.parent).read(path) != old:
        return f"{path} was changed by somebody else meanwhile"
    target = Path(os.path.realpath(path))  # a link within the folder stays one
    write_atomic(target, text.encode(), mode=target.stat().st_mode & 0o755)
    print(path)
    return ""


def _file(name: str, *, as_bottle: bool) -> Path:
    folders = [paths.bottles_dir()] if as_bottle else [paths.agents_dir(), paths.bottles_dir()]
    # A name is one of those that are there, so that none leads out of the folders.
    found = [folder / f"{name}.md" for folder in folders if f"{name}.md" in _names(folder)]
    if not found:
        there = sorted({entry.removesuffix(".md") for folder in folders for entry in _names(folder)})
        kind = "bottle" if as_bottle else "agent or bottle"
        hint = f"those that exist: {', '.join(there)}" if there else "write the first with: bot-bottle init"
        raise UsageError(f"there is no {kind} {name!r} of your own; {hint}")
    return found[0]


def _names(folder: Path) -> list[str]:
    from bot_bottle.manifest.files import ManifestFolder  # noqa: PLC0415

    return [f"{name}.md" for name in ManifestFolder(path=folder).names()[0]]


def _editor() -> list[str]:
    text = next((os.environ[name] for name in _EDITORS if os.environ.get(name)), _USUAL_EDITOR)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"$VISUAL or $EDITOR is no command line: {error}") from error
    return words or [_USUAL_EDITOR]


def _is_right(path: Path, text: str) -> bool:
    """Check a text as if it stood in ``path`` and say what is wrong with it."""
    from bot_bottle.manifest.check import check_draft  # noqa: PLC0415

    problems = check_draft(path, text, terminal.current_folder())
    terminal.say(str(problem) for problem in problems)
    return not problems
