"""Archives into and out of a bottle, by every tar that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, BinaryIO

import pytest

from bot_bottle.backend import transfer
from bot_bottle.backend.base import ExecResult

if TYPE_CHECKING:
    from pathlib import Path

DEEP = "/".join(["folder"] * 30)
NAME = "n" * 150


class Here:
    """Runs a bottle's scripts on this machine, where ``tar`` is the program that is tried."""

    def __init__(self, folder: Path, tar: str) -> None:
        place = folder / "tar"
        place.write_text(f'#!/bin/sh\nexec {tar} "$@"\n')
        place.chmod(0o755)
        self._env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}

    def exec_stream(self, script: str, *, stdin: BinaryIO | None, stdout: BinaryIO | None) -> ExecResult:
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._env,
            check=False,
        )
        return ExecResult(returncode=done.returncode, stdout=done.stdout or b"", stderr=done.stderr)


@pytest.fixture(params=["tar", "busybox tar", "bsdtar"])
def bottle(request: pytest.FixtureRequest, tmp_path: Path) -> Here:
    """Give a stand-in for a bottle for each kind of tar."""
    program, *words = request.param.split()
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed here")
    folder = tmp_path / "bin"
    folder.mkdir()
    return Here(folder, " ".join([found, *words]))


def test_a_tree_goes_in_and_comes_out_with_modes_links_and_long_names(bottle: Here, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / DEEP).mkdir(parents=True)
    (source / DEEP / NAME).write_bytes(b"deep")
    (source / "script").write_bytes(b"#!/bin/sh\n")
    (source / "script").chmod(0o751)
    (source / "closed").mkdir(mode=0o700)
    (source / "-odd name\n").write_bytes(b"odd")
    (source / "link").symlink_to(f"{DEEP}/{NAME}")
    inside, back = tmp_path / "inside" / "work", tmp_path / "back"
    transfer.cp_in(bottle, source, str(inside))
    transfer.cp_out(bottle, str(inside), back)
    for root in (inside, back):
        assert (root / DEEP / NAME).read_bytes() == b"deep"
        assert (root / "script").stat().st_mode & 0o777 == 0o751
        assert (root / "closed").stat().st_mode & 0o777 == 0o700
        assert (root / "-odd name\n").read_bytes() == b"odd"
        assert str((root / "link").readlink()) == f"{DEEP}/{NAME}"
        assert (root / "script").stat().st_uid == os.getuid()
