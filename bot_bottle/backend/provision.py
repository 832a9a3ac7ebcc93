"""What is placed in every fresh bottle, in the same order, whatever isolates it."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bot_bottle.agent_account import AGENT_HOME, AGENT_WORKSPACE
from bot_bottle.backend.copying import CopyProgress, tell_left_out
from bot_bottle.backend.transfer import Streams, add_bytes, quote, send_archive, send_stream
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.legible import legible
from bot_bottle.workspace import open_workspace

if TYPE_CHECKING:
    import tarfile

    from bot_bottle.agent_provider.plan import AgentProvisionPlan
    from bot_bottle.backend.plan import BottlePlan

#: What git writes before each line of the gate's.
_GATE = "remote: bot-bottle: "


def provision(bottle: Streams, plan: BottlePlan, *, resumed: bool, placed: bool = False) -> None:
    """Place the provider's folders and files, then, in a first launch, the copy of a workspace.

    ``placed`` says that the backend has placed the former (see :func:`packed`). Nothing of this needs the
    sidecar, which may still be on its way.
    Everything is unpacked by a process inside the bottle, so a link that an earlier session planted in its
    home leads nowhere but into the bottle.
    """
    if not placed and (plan.provision.dirs or plan.provision.files):
        send_archive(bottle, AGENT_HOME, lambda archive: write_provision(archive, plan.provision))
    if plan.spec.copy_cwd and not resumed:
        progress = CopyProgress()
        with contextlib.ExitStack() as stack:
            with progress.looking():
                source = stack.enter_context(
                    open_workspace(plan.spec.user_cwd, shown=plan.lenders, remotes=plan.git_remotes)
                )
            tell_left_out(source)
            progress.begin(len(source.files))
            send_stream(bottle, AGENT_WORKSPACE, lambda sink: source.write(sink, progress.count))


def clone_repository(bottle: Streams, plan: BottlePlan, *, resumed: bool) -> None:
    """Clone ``--repo`` through the git gate in a first launch; the sidecar must serve the bottle by then.

    Raises ``LaunchError`` with git's own words.
    """
    if plan.spec.repo and not resumed:
        _clone(bottle, plan)


def _clone(bottle: Streams, plan: BottlePlan) -> None:
    url = plan.spec.repo
    print(f"bot-bottle: cloning {legible(url)} through the git gate", file=sys.stderr, flush=True)
    script = f"exec git clone --quiet -- {quote(url)} {quote(AGENT_WORKSPACE)}"
    done = bottle.exec_stream(script, stdin=None, stdout=None)
    if done.returncode != 0:
        from bot_bottle.git_gate.git import last_words  # noqa: PLC0415 - brings asyncio, for this alone

        said = refusal_of(done.stderr) or last_words(done.stderr, f"git ended with {done.returncode}")
        raise LaunchError(
            f"{legible(url)} could not be cloned into the bottle: {said}; what was decided: "
            f"bot-bottle logs {plan.identity}"
        )


def refusal_of(stderr: bytes) -> str:
    """Give the reason out of the gate's refusal, without its rule and the agent's next step; else ``""``."""
    words = stderr.decode("utf-8", "replace").splitlines()
    said = [legible(line.removeprefix(_GATE)).strip() for line in words if line.startswith(_GATE)]
    rules = [number for number, line in enumerate(said) if line.startswith("rule ") and number]
    return said[rules[-1] - 1] if rules else ""


def write_provision(archive: tarfile.TarFile, provision_plan: AgentProvisionPlan) -> None:
    """Write a provider's folders and files; raises ``UsageError`` for one outside the agent's home."""
    for folder in provision_plan.dirs:
        member = archive.tarinfo(_in_home(folder))
        member.type, member.mode = b"5", 0o700
        archive.addfile(member)
    for file in provision_plan.files:
        add_bytes(archive, _in_home(file.path), file.content, file.mode)


def packed(provision_plan: AgentProvisionPlan, most: int) -> bytes | None:
    """Give a provider's folders and files as an archive to unpack in the agent's home; ``b""`` for none.

    For a backend that starts a fresh bottle with them. Gives None where it has more than ``most`` bytes;
    raises as :func:`write_provision`.
    """
    import tarfile  # noqa: PLC0415 - which a manifest never needs

    if not (provision_plan.dirs or provision_plan.files):
        return b""
    held = sum(len(file.content) for file in provision_plan.files)
    if held > most:
        return None
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as archive:
        write_provision(archive, provision_plan)
        end = archive.offset
    # Two blocks of zeros end an archive (POSIX, pax); what fills it up to a whole record can be spared.
    data = whole.getvalue()[: end + 2 * tarfile.BLOCKSIZE]
    return data if len(data) <= most else None


def _in_home(path: str) -> str:
    place = PurePosixPath(path)
    if ".." in place.parts or not place.is_relative_to(AGENT_HOME) or place == PurePosixPath(AGENT_HOME):
        raise UsageError(f"{path}: a provider places files below {AGENT_HOME} only")
    return str(place.relative_to(AGENT_HOME))
