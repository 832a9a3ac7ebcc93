"""A bottle's machine as its engine knows it: whose it is, what it needs to start, and that it is swept."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.outside import new_marker
from tests.support.watch import Watch

if TYPE_CHECKING:
    from tests.support.lab import Lab

pytestmark = pytest.mark.integration

BOTTLE = """\
agent_provider: {{template: command, argv: [/bin/true]}}
limits: {{memory: 512MiB, cpus: 1, open_files: 200}}
env: {{SHOWN_TO_NOBODY: {value}}}
"""

_LIST = """
import json, smol
here = smol.ConnectOptions(target="local")
print(json.dumps([[m.name, m.state, m.labels, m.resources.cpus, m.resources.memory_mib] for m in
                  smol.Machine.list(here)]))
"""

_START = """
import json, sys, smol
try:
    smol.Machine.connect(sys.argv[1], smol.ConnectOptions(target="local"))
    print(json.dumps("started"))
except smol.SmolError as error:
    print(json.dumps(str(error)))
"""


def ask(lab: Lab, code: str, *args: str) -> Any:
    """Run Python with the engine's SDK as the account that launches."""
    argv = [sys.executable, "-c", code, *args]
    return lab.world.run(argv, account=lab.account, env=lab.env, cwd=lab.project).json()


def test_a_kept_machine_is_ours_starts_with_its_sidecar_only_and_is_swept(lab: Lab) -> None:
    value = new_marker("value")
    lab.declare("swept", BOTTLE.format(value=value))
    # Neither an argument of any process nor the engine's own record shows what the bottle's variables hold.
    with Watch(value, lab.user_home / ".local" / "share" / "smolvm") as watch:
        running = lab.launch("swept", env={"SMOL_CLOUD_TOKEN": "leads-to-no-cloud"})
        name = f"bot-bottle-{running.identity}"
        told = running.sh("echo kept > ~/note; nproc; ulimit -n; echo $SHOWN_TO_NOBODY")
        assert told.out.split() == ["1", "200", value], told.err
        assert running.agent("printenv", "SHOWN_TO_NOBODY").out == f"{value}\n"
        running.close(exit_code=3)
    assert (watch.found, watch.rounds > 0, watch.files != set()) == (set(), True, True)
    installation = (lab.home / "installation").read_text().strip()
    (found,) = [one for one in ask(lab, _LIST) if one[0] == name]
    assert found[1:] == [
        "stopped",
        {
            "bot-bottle.identity": running.identity,
            "bot-bottle.installation": installation,
            "bot-bottle.role": "agent",
        },
        1,
        512,
    ]
    assert "interceptor" in ask(lab, _START, name), "without a sidecar it must not start"
    assert [one[1] for one in ask(lab, _LIST) if one[0] == name] == ["stopped"]
    # A state folder that went another way: nobody will resume this machine.
    shutil.rmtree(running.state_dir)
    swept = lab.cli("cleanup", "--yes")
    assert swept.returncode == 0, swept.err
    assert f"stopped machine {name} of a launch that is gone" in swept.out
    assert [one for one in ask(lab, _LIST) if one[0] == name] == []


def test_a_machine_starts_from_an_archive_that_holds_little_more_than_a_shell(lab: Lab) -> None:
    """What ``docker save`` writes, and no program of util-linux in it."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    archive = lab.user_home / "small.tar"
    archive.write_bytes(saved_image(small_root(Path(busybox))))
    lab.declare(
        "small",
        "agent_provider:\n  template: command\n  argv: [/bin/sh, -c, 'id -u; pwd; cat note']\n"
        f"  image: {archive}\n"
        "limits: {memory: 512MiB, cpus: 1}\n",
    )
    (lab.project / "note").write_text("brought in\n")
    lab.own()
    try:
        done = lab.cli("start", "small", "--yes", "--headless", "--cwd")
    finally:
        (lab.project / "note").unlink()
    assert (done.returncode, done.out) == (0, "1000\n/home/agent/workspace\nbrought in\n"), done.err


def small_root(busybox: Path) -> bytes:
    """Pack a root file system of one static program under the names that a bottle asks for, and /etc."""
    names = "sh tar grep mount umount find mkdir rmdir rm cat chmod chown id true sleep"
    files = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
        "etc/group": b"root:x:0:\n",
        "etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files\n",
        "bin/busybox": busybox.read_bytes(),
    }
    links = {f"bin/{name}": "busybox" for name in names.split()}
    return packed(files, links, ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var"))


def saved_image(layer: bytes) -> bytes:
    """Write an image of one layer as ``docker save`` does (the OCI image specification, "config")."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [],
    }
    text = json.dumps(config).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": ["small:1"], "Layers": ["layer.tar"]}]
    return packed({"manifest.json": json.dumps(manifest).encode(), name: text, "layer.tar": layer}, {}, ())


def packed(files: dict[str, bytes], links: dict[str, str], folders: tuple[str, ...]) -> bytes:
    """Write a tar archive of folders, programs and symbolic links, all root's."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name in folders:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
        for name, to in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, to
            archive.addfile(entry)
    return target.getvalue()
