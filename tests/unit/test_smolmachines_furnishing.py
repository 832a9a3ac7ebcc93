"""What root makes of a machine before its agent begins, really made: in a root folder of namespaces' own."""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import tarfile
from importlib import resources
from typing import TYPE_CHECKING

import pytest

from bot_bottle.agent_provider.plan import AgentProvisionPlan, ProvisionFile
from bot_bottle.backend.limits import EffectiveLimits
from bot_bottle.backend.provision import packed
from bot_bottle.backend.smolmachines import guest
from bot_bottle.backend.smolmachines.furnishing import ProgramSteps, ShellSteps, furnish
from bot_bottle.backend.smolmachines.machine_code import MACHINE, Code

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = EffectiveLimits(memory=512 << 20, cpus=None, processes=4000, open_files=200)
#: Only root can give a file to an account that its namespace does not know.
ACCOUNT = 1000 if os.geteuid() == 0 else 0
OWN, STARTER, ITSELF = "/run/own", "/run/own/start", "/run/furnish"
AGENT_LINE = "agent:x:1000:1000:agent:/home/agent:/bin/sh\n"
APPLETS = ("sh", "mount", "umount", "mkdir", "rmdir", "rm", "chown", "chmod", "cut", "sed", "stat", "ln")
SHELLS = [
    command
    for command in (("dash",), ("bash", "--posix"), ("busybox", "sh"))
    if shutil.which(command[0]) is not None
]
only_x86_64 = pytest.mark.skipif(platform.machine() != MACHINE, reason=f"programs are made for {MACHINE}")

_ENGINES = """
mount -t tmpfs engine /workspace && mount -t tmpfs engine /dev/net
mount -t tmpfs engine /storage && mkdir /storage/merged && mount -o rbind / /storage/merged
echo tun >/dev/net/tun; echo fuse >/dev/fuse; ln -s fuse /dev/kmsg
"""
_LOOK = f"""
echo "code $?"
cut -d' ' -f2-4 /proc/mounts | sed -n 's/relatime,//; s/,inode64//; s/,size=.*//; /tmpfs/p'
for path in /workspace /storage /dev/net /dev/fuse /dev/kmsg {ITSELF}; do
  [ -e $path ] || [ -L $path ] && echo "left $path"
done
stat -c '%n %a %u %g' {OWN} {OWN}/exec /home /home/agent /home/agent/workspace /tmp /var/tmp
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a root folder of busybox alone; skips where it, or namespaces, are not to be had."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not here to make a root folder of")
    for folder in ("bin", "proc", "run", "etc", "dev/net", "workspace", "storage"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copyfile(busybox, tmp_path / "bin" / "busybox")
    (tmp_path / "bin" / "busybox").chmod(0o755)
    for applet in APPLETS:
        (tmp_path / "bin" / applet).symlink_to("busybox")
    if run(tmp_path, "echo fine").stdout != "fine\n":
        pytest.skip("no static busybox runs in a root folder and namespaces of its own here")
    return tmp_path


def run(root: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as root of the folder, in a mount namespace that ends with it."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    enter = 'mount --rbind /proc "$0/proc" && exec chroot "$0" /bin/sh -c "$1"'
    return subprocess.run(
        ["unshare", *user, "--mount", "--propagation", "private", "/bin/sh", "-c", enter, str(root), script],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def program(*, tmp: str = "1048576", fresh: bool = True) -> bytes:
    steps = ProgramSteps()
    furnish(steps, own=OWN, runs=f"{OWN}/exec", tmp=tmp, programs=[STARTER], fresh=fresh, account=ACCOUNT)
    steps.remove_itself(ITSELF)
    return steps.executable()


def lay(root: Path, content: bytes) -> None:
    place = root / ITSELF.lstrip("/")
    place.write_bytes(content)
    place.chmod(0o700)


@only_x86_64
def test_one_program_makes_what_a_shell_and_a_dozen_programs_make(root: Path) -> None:
    other = shutil.copytree(root, root / "other", symlinks=True)
    lay(root, program())
    made = run(
        root, f"{_ENGINES} umask 077; {ITSELF} {_LOOK} stat -c '%n %a' {STARTER}; echo written >{STARTER}"
    )
    steps = ShellSteps()
    furnish(
        steps, own=OWN, runs=f"{OWN}/exec", tmp="1048576", programs=[STARTER], fresh=True, account=ACCOUNT
    )
    by_shell = run(
        other, f"set -e; {_ENGINES} umask 022; {steps.script()} set +e; : {_LOOK} stat -c '%n %a' {STARTER}"
    )
    assert (made.stderr, by_shell.stderr) == ("", "")
    assert made.stdout.splitlines() == [
        "code 0",
        f"{OWN} tmpfs rw,nosuid,nodev",
        "/etc/ssl/certs tmpfs rw,nosuid,nodev,noexec",
        "/tmp tmpfs rw,nosuid,nodev",
        f"{OWN} 755 0 0",
        f"{OWN}/exec 1777 0 0",
        "/home 755 0 0",
        f"/home/agent 755 {ACCOUNT} {ACCOUNT}",
        f"/home/agent/workspace 755 {ACCOUNT} {ACCOUNT}",
        "/tmp 1777 0 0",
        "/var/tmp 755 0 0",
        f"{STARTER} 755",
    ]
    assert by_shell.stdout == made.stdout


@only_x86_64
def test_what_cannot_be_made_or_taken_away_ends_the_program_with_its_step(root: Path) -> None:
    lay(root, program())
    # A device's folder with something in it that is nobody's: it stays, and so nothing begins.
    kept = run(root, f"{_ENGINES} rm /dev/kmsg; mkdir -p /dev/kmsg/inside; {ITSELF}; echo $?")
    assert int(kept.stdout) > 10, kept.stderr
    lay(root, program(tmp="no-size"))
    assert run(root, f"{ITSELF}; echo $?").stdout == "7\n", "the third mount, behind four folders"
    (root / "run" / "own").rmdir()
    (root / "run" / "own").write_text("a file")
    assert run(root, f"{ITSELF}; echo $?").stdout == "1\n"


@only_x86_64
def test_a_kept_machines_home_is_left_as_it_is(root: Path) -> None:
    lay(root, program(fresh=False))
    done = run(root, f"{ITSELF}; echo $?; [ -e /home ] || echo none")
    assert done.stdout == "0\nnone\n"


def test_a_text_that_a_system_call_would_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="zero"):
        Code().text("/run\0/etc")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("passwd", "becomes"),
    [
        (None, AGENT_LINE),
        (
            "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nagent:x:5:5::/:/bin/no",
            "root:x:0:0:root:/root:/bin/sh\n" + AGENT_LINE + "node:x:1000:1000::/home/node:/bin/sh\n",
        ),
        ("a\\n:x:7:7::/:/bin/no\nagent:!:1000:1000:A Name:/home/agent:/bin/zsh\n", None),
    ],
)
def test_uid_1000_gets_the_agents_name_before_any_other(
    tmp_path: Path, shell: tuple[str, ...], passwd: str | None, becomes: str | None
) -> None:
    (tmp_path / "etc").mkdir()
    place = tmp_path / "etc" / "passwd"
    if passwd is not None:
        place.write_text(passwd)
    text = resources.files("bot_bottle.backend").joinpath("account.sh").read_text("utf-8")
    done = subprocess.run(
        [*shell, "-euc", text.replace("/etc/", f"{tmp_path}/etc/")],
        env={"PATH": "/nowhere"},
        executable=shutil.which(shell[0]),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert place.read_text() == (passwd if becomes is None else becomes)
    assert (tmp_path / "etc" / "group").read_text() == "agent:x:1000:\n"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda command: command[0])
def test_a_group_of_that_number_stays(tmp_path: Path, shell: tuple[str, ...]) -> None:
    (tmp_path / "etc").mkdir()
    group = tmp_path / "etc" / "group"
    text = resources.files("bot_bottle.backend").joinpath("account.sh").read_text("utf-8")
    for before, after in (
        ("root:x:0:\nnode:x:1000:a,b\n", "root:x:0:\nnode:x:1000:a,b\n"),
        ("root:x:0:1000\nother:x:10001:1000", "root:x:0:1000\nother:x:10001:1000\nagent:x:1000:\n"),
    ):
        group.write_text(before)
        script = text.replace("/etc/", f"{tmp_path}/etc/")
        subprocess.run([*shell, "-euc", script], check=True, env={"PATH": os.environ["PATH"]})
        assert group.read_text() == after


def provided(*contents: bytes) -> AgentProvisionPlan:
    files = tuple(
        ProvisionFile(path=f"/home/agent/.tool/{number}", content=content)
        for number, content in enumerate(contents)
    )
    return AgentProvisionPlan(
        template="x", program="x", argv=("x",), dirs=("/home/agent/.tool",), files=files
    )


def test_a_providers_files_go_in_as_a_whole_archive_within_bounds(tmp_path: Path) -> None:
    nothing = AgentProvisionPlan(template="x", program="x", argv=("x",))
    assert packed(nothing, 0) == b""
    plan = provided(b"one", b"\0" * 700)
    archive = packed(plan, 1 << 16)
    assert archive is not None
    assert len(archive) < 10240, "no record is filled up"
    subprocess.run(["tar", "-xpf", "-", "-C", str(tmp_path)], input=archive, check=True)
    assert (tmp_path / ".tool").stat().st_mode & 0o777 == 0o700
    assert [(tmp_path / ".tool" / str(number)).read_bytes() for number in (0, 1)] == [b"one", b"\0" * 700]
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert opened.getnames() == [".tool", ".tool/0", ".tool/1"]
    assert packed(plan, len(archive)) == archive
    assert packed(plan, len(archive) - 1) is None
    assert packed(plan, 10) is None


@pytest.mark.parametrize("shell", SHELLS, ids=lambda command: command[0])
def test_the_set_up_unpacks_behind_the_starter(tmp_path: Path, shell: tuple[str, ...]) -> None:
    archive = packed(provided(b"it's @CA@ \\ \n"), 1 << 16)
    assert archive
    script = guest.set_up_script(
        env={},
        ca_pem="",
        hosts=[],
        limits=LIMITS,
        fresh=True,
        filter_program=b"\x06\0\0\0\0\0\xff\x7f",
        archive=archive,
    )
    line = script[script.rindex("\nprintf %b ") + 1 :]
    starter = tmp_path / "start"
    starter.write_text('#!/bin/sh\necho started; exec "$@"\n')
    starter.chmod(0o755)
    (tmp_path / "home").mkdir()
    line = line.replace("/run/bot-bottle/start", str(starter)).replace("/home/agent", str(tmp_path / "home"))
    done = subprocess.run([*shell, "-euc", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
    assert (tmp_path / "home" / ".tool" / "0").read_bytes() == b"it's @CA@ \\ \n"
