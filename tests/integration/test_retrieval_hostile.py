"""Attacks G1 and E: of what a bottle leaves in its workspace ``diff`` and ``pull`` run and follow nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.kept_work import IDENTITY, KeptWork, git

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.integration, pytest.mark.attack]

HOOKS = (
    "applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-applypatch", "post-checkout", "post-commit",
    "post-index-change", "post-merge", "post-rewrite", "post-update", "pre-applypatch", "pre-auto-gc",
    "pre-commit", "pre-merge-commit", "pre-push", "pre-rebase", "pre-receive", "prepare-commit-msg",
    "proc-receive", "push-to-checkout", "reference-transaction", "sendemail-validate", "update",
)  # fmt: skip

#: Every setting of git's by which a repository names a program (G1), with TRAP for that program.
SETTINGS = """
[core]
	repositoryformatversion = 1
	fsmonitor = TRAP
	hooksPath = HOOKS
	sshCommand = TRAP
	gitProxy = TRAP
	pager = TRAP
	editor = TRAP
	askPass = TRAP
	alternateRefsCommand = TRAP
	attributesFile = ATTRIBUTES
[extensions]
	worktreeConfig = true
[diff]
	external = TRAP
[diff "trap"]
	textconv = TRAP
	command = TRAP
	cachetextconv = false
[filter "trap"]
	clean = TRAP
	smudge = TRAP
	process = TRAP
	required = true
[merge "trap"]
	driver = TRAP %A
[gpg]
	program = TRAP
[commit]
	gpgSign = true
[log]
	showSignature = true
[credential]
	helper = TRAP
[uploadpack]
	packObjectsHook = TRAP
[sequence]
	editor = TRAP
[interactive]
	diffFilter = TRAP
[pager]
	diff = TRAP
	log = TRAP
[trailer "trap"]
	command = TRAP
[remote "origin"]
	url = ext::TRAP
	uploadpack = TRAP
	receivepack = TRAP
	promisor = true
	partialclonefilter = blob:none
	vcs = trap
[url "ext::TRAP "]
	insteadOf = https://
[submodule "mod"]
	update = !TRAP
	active = true
[include]
	path = INCLUDED
[includeIf "gitdir:**"]
	path = INCLUDED
[alias]
	diff = !TRAP
	log = !TRAP
"""
ATTRIBUTES = "* diff=trap filter=trap merge=trap\n*.txt diff=trap filter=trap working-tree-encoding=UTF-16\n"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptWork:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    return KeptWork(tmp_path)


def trap(base: Path) -> tuple[Path, Path]:
    """Make a program that leaves a mark wherever it is run; gives it and the mark."""
    program, mark = base / "trap", base / "sprung"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >>{mark}\ncat\n')
    program.chmod(0o755)
    return program, mark


def plant_everything(work: KeptWork, base: Path) -> Path:
    """Put every item of G1 into the workspace; gives the mark that any of them would leave."""
    program, mark = trap(base)
    dot_git = work.workspace / ".git"
    (work.workspace / ".gitattributes").write_text(ATTRIBUTES)
    (work.workspace / "kept.txt").write_text("changed, so that a filter and a textconv would be asked\n")
    (dot_git / "info").mkdir(exist_ok=True)
    (dot_git / "info" / "attributes").write_text(ATTRIBUTES)
    hooks = dot_git / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in HOOKS:
        shutil.copy(program, hooks / name)
    included, attributes = base / "included", base / "attributes"
    included.write_text(f"[core]\n\tfsmonitor = {program}\n[diff]\n\texternal = {program}\n")
    attributes.write_text(ATTRIBUTES)
    text = SETTINGS.replace("TRAP", str(program)).replace("HOOKS", str(hooks))
    text = text.replace("INCLUDED", str(included)).replace("ATTRIBUTES", str(attributes))
    (dot_git / "config").write_text(text)
    (dot_git / "config.worktree").write_text(text)
    nested = work.workspace / "nested"
    shutil.copytree(dot_git, nested / ".git")
    (nested / "file.txt").write_text("x\n")
    for name in ("git", "git-remote-trap", "git-diff", "less", "sh"):
        shutil.copy(program, work.workspace / name)
    return mark


def test_the_traps_would_spring_if_git_worked_in_that_folder(work: KeptWork, tmp_path: Path) -> None:
    mark = plant_everything(work, tmp_path)
    for command in (("status",), ("-c", "core.fsmonitor=false", "diff"), ("add", "-A")):
        mark.unlink(missing_ok=True)
        subprocess.run(["git", *command], cwd=work.workspace, capture_output=True, check=False, timeout=60)
        assert mark.exists(), command


def test_g1_nothing_that_the_bottle_planted_runs(work: KeptWork, tmp_path: Path) -> None:
    tip = work.commit("a.txt", "a\n")
    mark = plant_everything(work, tmp_path)
    shown = work.run("diff", IDENTITY)
    assert shown.code == 0, shown.err
    assert "+changed, so that a filter" in shown.out
    assert "left out: nested/: is a repository of its own" in shown.err
    assert work.run("pull", IDENTITY, "--branch", "committed").code == 0
    done = work.run("pull", IDENTITY, "--uncommitted")
    assert done.code == 0, done.err
    assert not mark.exists(), mark.read_text()
    assert git(work.project, "rev-parse", f"{work.branch()}^") == tip
    # Raw content, whatever filters and encodings the attributes name.
    assert git(work.project, "show", f"{work.branch()}:kept.txt").startswith("changed, so that")


def test_g1_hooks_of_the_operators_own_repository_stay_quiet(work: KeptWork, tmp_path: Path) -> None:
    program, mark = trap(tmp_path)
    for name in HOOKS:
        shutil.copy(program, work.project / ".git" / "hooks" / name)
    git(work.project, "config", "core.fsmonitor", str(program))
    work.commit("a.txt", "a\n")
    assert work.run("pull", IDENTITY).code == 0
    assert not mark.exists()


def secret_file(base: Path) -> Path:
    place = base / "operators-secret.txt"
    place.write_text("TOP-SECRET-OF-THE-HOST\n")
    return place


def _swap_for_link(target: Path) -> Callable[[KeptWork, Path], None]:
    def plant(work: KeptWork, secret: Path) -> None:
        place = work.workspace / target
        if place.is_dir() and not place.is_symlink():
            moved = secret.parent / f"moved-{place.name}"
            shutil.move(place, moved)
            place.symlink_to(moved, target_is_directory=True)
        else:
            place.unlink(missing_ok=True)
            place.symlink_to(secret)

    return plant


LINKS = [
    ".git", ".git/objects", ".git/objects/pack", ".git/refs", ".git/refs/heads", ".git/HEAD",
    ".git/packed-refs", ".git/info", "src", "kept.txt", ".gitignore",
]  # fmt: skip


@pytest.mark.parametrize("place", LINKS)
def test_e_links_are_data_and_lead_nowhere(work: KeptWork, tmp_path: Path, place: str) -> None:
    secret = secret_file(tmp_path)
    (work.workspace / "src").mkdir()
    (work.workspace / "src" / "a.txt").write_text("a\n")
    work.commit("src/b.txt", "b\n")
    _swap_for_link(Path(place))(work, secret)
    shown = work.run("diff", IDENTITY)
    pulled = work.run("pull", IDENTITY, "--uncommitted")
    assert shown.code in {0, 2}
    assert pulled.code in {0, 2}, pulled.err
    assert "TOP-SECRET" not in shown.out + shown.err + pulled.out + pulled.err
    if tip := work.branch():
        assert "TOP-SECRET" not in git(work.project, "log", "-p", "--all")
        assert git(work.project, "fsck", "--strict") == ""
        if place == "src":
            assert git(work.project, "ls-tree", tip, "src").startswith("120000 blob ")


def test_alternates_and_gitdir_files_lead_nowhere(work: KeptWork, tmp_path: Path) -> None:
    """Objects that only another repository of the host has are missing, not found."""
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    (other / "private.txt").write_text("TOP-SECRET-OF-THE-HOST\n")
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "private")
    private = git(other, "rev-parse", "HEAD")
    alternates = work.workspace / ".git" / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_text(f"{other}/.git/objects\n")
    (work.workspace / ".git" / "refs" / "heads" / "main").write_text(f"{private}\n")
    for command in ("diff", "pull"):
        done = work.run(command, IDENTITY)
        assert done.code == 2
        assert "is not taken" in done.err
        assert "TOP-SECRET" not in done.out + done.err
    shutil.rmtree(work.workspace / ".git")
    (work.workspace / ".git").write_text(f"gitdir: {other}/.git\n")
    for command in ("diff", "pull"):
        done = work.run(command, IDENTITY)
        assert done.code == 2
        assert "the .git of the workspace is no folder" in done.err


def test_an_object_under_another_ones_name_is_not_believed(work: KeptWork) -> None:
    """A loose object named like the operator's commit would hide what changed; it is known by its hash."""
    tip = work.commit("evil.txt", "evil\n")
    forged = zlib.compress(b"commit 0\0")
    for name in (work.first, tip):
        place = work.workspace / ".git" / "objects" / name[:2] / name[2:]
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            place.chmod(0o644)
        place.write_bytes(forged)
    done = work.run("pull", IDENTITY)
    assert done.code == 2
    assert work.branch() == ""
    # With the real one back, the forged parent changes nothing.
    content = git(work.workspace, "hash-object", "-t", "blob", "--stdin", given=b"x")
    assert content == hashlib.sha1(b"blob 1\0x", usedforsecurity=False).hexdigest()
    shutil.rmtree(work.workspace)
    git(work.home, "clone", "-q", "--no-local", str(work.project), str(work.workspace))
    tip = work.commit("evil.txt", "evil\n")
    place = work.workspace / ".git" / "objects" / work.first[:2] / work.first[2:]
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.write_bytes(forged)
    assert "evil.txt" in work.run("diff", IDENTITY).out
    assert work.run("pull", IDENTITY).code == 0
    assert work.branch() == tip


def tree_of(work: KeptWork, *lines: bytes) -> str:
    """Write a tree that git itself would not; gives a commit of it."""
    git(work.workspace, "config", "core.protectNTFS", "false")
    tree = git(
        work.workspace, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", given=b"".join(lines)
    )
    return git(work.workspace, "commit-tree", "-p", "HEAD", "-m", "hostile", tree)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (b".git", b"100644"), (b"..", b"40000"), (b".GIT", b"40000"), (b"git~1", b"100644"),
        (b"a/b", b"100644"), (b".gitmodules", b"120000"), (b".", b"100644"),
    ],
)  # fmt: skip
def test_names_that_would_reach_a_git_folder_do_not_come_in(work: KeptWork, name: bytes, mode: bytes) -> None:
    blob = git(work.workspace, "hash-object", "-w", "--stdin", given=b"x")
    entry = work.first if mode == b"40000" else blob
    if mode == b"40000":
        entry = git(work.workspace, "rev-parse", "HEAD^{tree}")
    commit = tree_of(work, b"%b %b\0%b" % (mode, name, bytes.fromhex(entry)))
    (work.workspace / ".git" / "refs" / "heads" / "main").write_text(f"{commit}\n")
    done = work.run("pull", IDENTITY)
    assert done.code == 2
    assert "is not taken, since git says of it" in done.err
    assert work.branch() == ""


def test_a_name_that_is_not_committed_keeps_out_nothing_that_is(work: KeptWork) -> None:
    tip = work.commit("a.txt", "a\n")
    (work.workspace / ".GIT").mkdir()
    (work.workspace / ".GIT" / "config").write_text("[core]\n\tfsmonitor = x\n")
    whole = work.run("pull", IDENTITY, "--uncommitted")
    assert whole.code == 2
    assert "is not taken, since git says of it" in whole.err
    done = work.run("pull", IDENTITY)
    assert done.code == 0, done.err
    assert work.branch() == tip
    assert work.run("diff", IDENTITY, "--committed").code == 0


def test_submodule_urls_that_are_options_do_not_come_in(work: KeptWork) -> None:
    work.commit(".gitmodules", '[submodule "x"]\n\tpath = x\n\turl = -u./payload\n')
    done = work.run("pull", IDENTITY)
    assert done.code == 2
    assert "gitmodulesUrl" in done.err or "disallowed" in done.err


REF_NAMES = [
    "-d",
    "--upload-pack=x",
    "a b",
    "x\x1b[31m",
    "x.lock",
    "..",
    "a..b",
    "HEAD",
    "main@{1}",
    "\u202etxt",
]


def test_hostile_refs_are_passed_over(work: KeptWork) -> None:
    tip = work.commit("a.txt", "a\n")
    heads = work.workspace / ".git" / "refs" / "heads"
    for name in REF_NAMES:
        if "/" not in name and name not in {".", ".."}:
            (heads / name).write_text(f"{tip}\n")
    (heads / "fifo").unlink(missing_ok=True)
    os.mkfifo(heads / "fifo")
    (heads / "huge").write_bytes(b"0" * 10_000_000)
    (heads / "words").write_text("--output=/tmp/x\n")
    packed = "".join(f"{tip} refs/heads/../../{n}\n{tip} refs/heads/{n}\0x\n" for n in range(50))
    (work.workspace / ".git" / "packed-refs").write_text(packed)
    listed = json.loads(work.run("diff", IDENTITY, "--json").out)
    assert set(listed["branches"]) <= {"main", "-d", "--upload-pack=x", "HEAD"}
    assert work.run("pull", IDENTITY).code == 0
    assert git(work.project, "for-each-ref", "--format=%(refname)", "refs/heads").split() == [
        f"refs/heads/bottle/{IDENTITY}",
        "refs/heads/main",
    ]


def test_nothing_that_steers_a_terminal_reaches_it(work: KeptWork) -> None:
    escape = "\x1b]0;owned\x07\x1b[2J\u202e\r"
    git(work.workspace, "config", "user.name", f"Nice{escape}")
    (work.workspace / "plain.txt").write_text(f"a{escape}b\n")
    (work.workspace / "na\x1b[31mme\n.txt").write_text("x\n")
    (work.workspace / ".github").mkdir()
    (work.workspace / ".github" / "workflows").mkdir()
    (work.workspace / ".github" / "workflows" / "x\x1b[31m.yml").write_text("x\n")
    git(work.workspace, "add", "-A")
    git(work.workspace, "commit", "-q", "--author", f"Nice{escape} <x@y>", "-m", f"sub{escape}ject")
    (work.workspace / "nes\x1b[31mted").mkdir()
    git(work.workspace / "nes\x1b[31mted", "init", "-q")
    for words in (
        ("diff", IDENTITY),
        ("pull", IDENTITY),
        ("diff", IDENTITY, "--json"),
        ("pull", IDENTITY, "--json"),
    ):
        done = work.run(*words)
        assert done.code == 0, done.err
        said = done.out + done.err
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(said), words
    assert r"a\x1b]0;owned\x07\x1b[2J\u202e\rb" in work.run("diff", IDENTITY).out


def test_pipes_sockets_holes_and_depth_do_not_hang_or_fill_anything(work: KeptWork) -> None:
    os.mkfifo(work.workspace / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        place = os.open(work.workspace, os.O_PATH)
        try:
            listener.bind(f"/proc/self/fd/{place}/socket")
        finally:
            os.close(place)
    with (work.workspace / "hole").open("wb") as file:
        file.truncate(1 << 40)
    current = work.workspace
    for _ in range(230):
        current /= "d"
        current.mkdir()
    (current / "deep.txt").write_text("x")
    (work.workspace / "kept.txt").write_text("changed\n")
    done = work.run("pull", IDENTITY, "--uncommitted")
    assert done.code == 0, done.err
    assert "left out: hole: is larger than 1 GiB" in done.err
    assert work.kept_files(work.branch()) == [".gitignore", "kept.txt"]


def test_holes_without_end_are_a_sentence(work: KeptWork) -> None:
    tip = work.commit("a.txt", "a\n")
    for number in range(66):
        with (work.workspace / f"hole{number}").open("wb") as file:
            file.truncate(1 << 30)
    done = work.run("pull", IDENTITY, "--uncommitted")
    assert done.code == 2
    assert "hold more than 64 GiB" in done.err
    committed = work.run("pull", IDENTITY)
    assert committed.code == 0
    assert "left out: what is not committed: the files of the workspace hold more" in committed.err
    assert work.branch() == tip


def test_a_loose_object_that_unfolds_without_end_is_not_taken(
    work: KeptWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot_bottle.retrieval.history._MAX_LOOSE", 8 << 20)
    packer = zlib.compressobj(9)
    piece = packer.compress(b"blob 5000000000\0")
    zeros = bytes(1 << 22)
    name = "ab" + "0" * 38
    place = work.workspace / ".git" / "objects" / name[:2] / name[2:]
    place.parent.mkdir(exist_ok=True)
    with place.open("wb") as file:
        file.write(piece)
        for _ in range(4):
            file.write(packer.compress(zeros))
        file.write(packer.flush())
    tip = work.commit("a.txt", "a\n")
    assert work.run("pull", IDENTITY).code == 0
    assert work.branch() == tip


def test_a_bottle_that_swaps_folders_for_links_meanwhile_shows_nothing_of_the_host(
    work: KeptWork, tmp_path: Path
) -> None:
    secret = secret_file(tmp_path)
    target = work.workspace / "race"
    target.mkdir()
    (target / secret.name).write_text("harmless\n")
    moved = work.workspace / "moved"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            target.rename(moved)
            target.symlink_to(tmp_path)
            target.unlink()
            moved.rename(target)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(3):
            done = work.run("diff", IDENTITY)
            assert "TOP-SECRET" not in done.out + done.err
    finally:
        stop.set()
        thread.join()


def test_nothing_stays_in_the_temporary_folder(work: KeptWork, tmp_path: Path) -> None:
    work.commit("a.txt", "a\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert work.run("diff", IDENTITY, TMPDIR=str(scratch)).code == 0
    assert work.run("pull", IDENTITY, TMPDIR=str(scratch)).code == 0
    assert list(scratch.iterdir()) == []
    packs = list((work.project / ".git" / "objects" / "pack").iterdir())
    assert all(stat.S_ISREG(one.lstat().st_mode) for one in packs)
