"""The private copy of a folder, made by real git and real tar."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from bot_bottle.backend.copying import CopyProgress, tell_left_out
from bot_bottle.backend.transfer import cp_in, cp_out, send_archive, send_stream
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.git_gate.remote import GateRemote
from bot_bottle.workspace import open_workspace
from tests.support.local_streams import LocalStreams

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def git(folder: Path, *arguments: str) -> str:
    env = {
        **{name: os.environ[name] for name in ("PATH",) if name in os.environ},
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "tester" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    (folder / ".gitignore").write_text("ignored.txt\nbuild/\n")
    (folder / "kept.txt").write_text("first")
    (folder / "gone.txt").write_text("tracked, then deleted")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    git(folder, "tag", "v1")
    git(folder, "branch", "side")
    (folder / "kept.txt").write_text("changed, not committed")
    (folder / "gone.txt").unlink()
    (folder / "untracked.txt").write_text("new")
    (folder / "ignored.txt").write_text("never")
    (folder / "build").mkdir()
    (folder / "build" / "out").write_text("never")
    return folder


def copy(folder: Path, destination: Path) -> Path:
    with open_workspace(folder) as source:
        send_stream(LocalStreams(), str(destination), source.write)
    return destination


def test_a_repository_arrives_with_history_and_work_in_progress(repository: Path, tmp_path: Path) -> None:
    place = copy(repository, tmp_path / "copy")
    assert (place / "kept.txt").read_text() == "changed, not committed"
    assert (place / "untracked.txt").read_text() == "new"
    assert os.access(place / "run.sh", os.X_OK)
    assert not (place / "ignored.txt").exists()
    assert not (place / "build").exists()
    assert git(place, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")
    assert git(place, "symbolic-ref", "HEAD") == "refs/heads/trunk"
    assert set(git(place, "for-each-ref", "--format=%(refname)").split()) == {
        "refs/heads/trunk",
        "refs/heads/side",
        "refs/tags/v1",
    }
    status = {line.strip() for line in git(place, "status", "--porcelain").splitlines()}
    assert status == {"M kept.txt", "D gone.txt", "?? untracked.txt"}
    git(place, "fsck", "--strict")


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://me:hidden-token@git.example/me/p.git", "https://git.example/me/p.git"),
        ("git@git.example:me/p", "https://git.example/me/p.git"),
        ("https://git.example/me/p-next-door.git", ""),
        ("https://git.example@other.example/me/p.git", ""),
        ("", ""),
    ],
)
def test_the_copy_has_an_origin_only_where_the_bottle_declares_it(
    repository: Path, tmp_path: Path, url: str, origin: str
) -> None:
    remotes = [
        GateRemote(
            host=host,
            name=name,
            scheme="https",
            user="",
            upstream_host=host,
            port=None,
            path=f"/me/{name}.git",
        )
        for host, name in (("else.example", "q"), ("git.example", "p"))
    ]
    if url:
        git(repository, "remote", "add", "origin", url)
    with open_workspace(repository, remotes=remotes) as source:
        send_stream(LocalStreams(), str(tmp_path / "copy"), source.write)
    config = (tmp_path / "copy" / ".git" / "config").read_text()
    assert "hidden-token" not in config
    if not origin:
        assert "remote" not in config
        return
    assert git(tmp_path / "copy", "remote", "get-url", "--push", "origin") == origin
    assert git(tmp_path / "copy", "config", "remote.origin.fetch") == "+refs/heads/*:refs/remotes/origin/*"


def test_every_file_arrives_in_whatever_order_git_names_them(repository: Path, tmp_path: Path) -> None:
    """Files of the top come before, between and behind those of folders, tracked, staged and untracked."""
    names = ("a/deep/er/x", "a/deep/y", "a/z", "b", "lib/x.py", "lib.py", "package.json", "s/t/u", "z.md")
    for kind in ("tracked", "staged", "new"):
        for name in names:
            file = repository / f"{name}.{kind}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(kind)
        if kind != "new":
            git(repository, "add", ".")
        if kind == "tracked":
            git(repository, "commit", "-q", "-m", "two")
    place = copy(repository, tmp_path / "copy")

    def files(folder: Path) -> set[str]:
        listed = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        return {name for name in listed if name and (folder / name).exists()}

    assert files(place) == files(repository)
    assert len(files(place)) == 3 * len(names) + 4
    assert {line[:2].strip() for line in git(place, "status", "--porcelain").splitlines()} == {"??"}


def test_no_hook_no_remote_no_foreign_config_and_no_host_path_arrives(
    repository: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "a-program-ran"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\nexit 0\n")
    script.chmod(0o755)
    for setting in (
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.editor",
        "uploadpack.packObjectsHook",
    ):
        git(repository, "config", setting, str(script))
    git(repository, "config", "filter.evil.clean", str(script))
    git(repository, "remote", "add", "origin", "ssh://git@example.com/secret-place.git")
    hooks = repository / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-checkout", "pre-commit", "post-index-change", "reference-transaction"):
        (hooks / hook).write_text(script.read_text())
        (hooks / hook).chmod(0o755)
    place = copy(repository, tmp_path / "copy")
    assert not marker.exists()
    config = (place / ".git" / "config").read_text()
    assert "evil" not in config
    assert "example.com" not in config
    assert str(repository) not in config
    assert not list((place / ".git" / "hooks").iterdir())
    leaks = [
        path
        for path in (place / ".git").rglob("*")
        if path.is_file() and os.fsencode(repository) in path.read_bytes()
    ]
    assert leaks == []


def test_links_and_special_files_are_never_followed(repository: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside-secret"
    outside.write_text("the operator's own")
    (repository / "link").symlink_to(outside)
    (repository / "folder-link").symlink_to(tmp_path)
    os.mkfifo(repository / "pipe")
    place = copy(repository, tmp_path / "copy")
    assert (place / "link").is_symlink()
    assert (place / "folder-link").is_symlink()
    assert not (place / "pipe").exists()
    for path in place.rglob("*"):
        assert path.is_symlink() or not path.is_file() or b"the operator's own" not in path.read_bytes()


def test_detached_head_empty_repository_subfolder_and_plain_folder(repository: Path, tmp_path: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    place = copy(repository, tmp_path / "detached")
    assert git(place, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")

    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    (empty / "first").write_text("1")
    place = copy(empty, tmp_path / "empty-copy")
    assert "?? first" in git(place, "status", "--porcelain")

    (repository / "sub").mkdir()
    (repository / "sub" / "inner.txt").write_text("x")
    place = copy(repository / "sub", tmp_path / "sub-copy")
    assert [path.name for path in place.iterdir()] == ["inner.txt"]

    plain = tmp_path / "plain"
    (plain / "deep").mkdir(parents=True)
    (plain / "deep" / "file").write_text("y")
    place = copy(plain, tmp_path / "plain-copy")
    assert (place / "deep" / "file").read_text() == "y"


def test_a_worktree_is_copied_as_a_repository_of_its_own(repository: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    git(repository, "worktree", "add", "-q", str(tree), "side")
    (tree / "only-here").write_text("w")
    place = copy(tree, tmp_path / "copy")
    assert (place / ".git").is_dir()
    assert (place / "only-here").read_text() == "w"
    assert git(place, "symbolic-ref", "HEAD") == "refs/heads/side"


def test_a_partial_clone_starts_no_program_of_its_own(repository: Path, tmp_path: Path) -> None:
    """A missing object makes git fetch it, by a program that the repository's configuration names."""
    marker = tmp_path / "a-program-ran"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\nexit 1\n")
    script.chmod(0o755)
    plain = (repository / ".git" / "config").read_text()
    for url in (str(repository), f"ext::{script}", "ssh://git@localhost/x"):
        (repository / ".git" / "config").write_text(
            f"{plain}\n[extensions]\n\tpartialClone = origin\n"
            f'[protocol]\n\tallow = always\n[protocol "ext"]\n\tallow = always\n'
            f"[core]\n\tsshCommand = {script}\n"
            f'[remote "origin"]\n\turl = {url}\n\tpromisor = true\n\tuploadpack = {script}\n'
        )
        head = repository / ".git" / "refs" / "heads" / "trunk"
        known = head.read_text()
        for missing in ("1" * 40, known.strip()):
            head.write_text(missing + "\n")
            with contextlib.suppress(LaunchError, UsageError):
                copy(repository, tmp_path / f"copy-{len(list(tmp_path.iterdir()))}")
            assert not marker.exists(), (url, missing)
        head.write_text(known)


def test_a_partial_clone_is_told_how_to_become_whole(repository: Path, tmp_path: Path) -> None:
    git(repository, "commit", "-q", "-a", "-m", "two")
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{repository}", "partial")
    partial = tmp_path / "partial"
    with pytest.raises(UsageError, match="is a partial clone") as raised, open_workspace(partial):
        pytest.fail("a history with holes was opened")
    told = str(raised.value).partition("first: git ")[2].split()
    git(partial, *told)
    place = copy(partial, tmp_path / "copy")
    assert git(place, "rev-list", "--count", "--objects", "HEAD") == git(
        repository, "rev-list", "--count", "--objects", "HEAD"
    )


def test_a_tracked_folder_replaced_by_a_link_brings_nothing_in(repository: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "id_rsa").write_text("the operator's own key")
    (outside / "deep" / "id_rsa").write_text("the operator's own key")
    for name in ("keys", "more/keys"):
        (repository / name / "deep").mkdir(parents=True)
        (repository / name / "id_rsa").write_text("tracked")
        (repository / name / "deep" / "id_rsa").write_text("tracked")
    git(repository, "add", ".")
    for name in ("keys", "more/keys"):
        shutil.rmtree(repository / name)
        (repository / name).symlink_to(outside)
    (repository / ".gitignore").write_text("/keys\n/more/keys\n")
    place = copy(repository, tmp_path / "copy")
    arrived = [path for path in place.rglob("*") if path.is_file() and b"own key" in path.read_bytes()]
    assert arrived == []
    assert (place / "kept.txt").exists()


@pytest.mark.parametrize("kind", ["gitfile", "linked .git", "commondir", "linked objects", "linked refs"])
def test_another_projects_history_is_not_borrowed(repository: Path, tmp_path: Path, kind: str) -> None:
    private = tmp_path / "private"
    shutil.copytree(repository, private)
    folder = tmp_path / "hostile"
    folder.mkdir()
    (folder / "file").write_text("x")
    theirs, ours = private / ".git", folder / ".git"
    if kind == "gitfile":
        ours.write_text(f"gitdir: {theirs}\n")
    elif kind == "linked .git":
        ours.symlink_to(theirs)
    else:
        git(folder, "init", "-q", "-b", "trunk")
        if kind == "commondir":
            (ours / "commondir").write_text(f"{theirs}\n")
        else:
            name = "objects" if kind == "linked objects" else "refs"
            shutil.rmtree(ours / name)
            (ours / name).symlink_to(theirs / name)
        (ours / "HEAD").write_text("ref: refs/heads/trunk\n")
    with pytest.raises((UsageError, LaunchError)), open_workspace(folder):
        pytest.fail("the history of another project was opened")


def test_a_submodule_is_a_repository_of_its_own(repository: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "inner")
    place = copy(outer / "inner", tmp_path / "copy")
    assert (place / ".git").is_dir()
    assert git(place, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")


def test_files_of_submodules_come_along(repository: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "inner")
    git(outer, "commit", "-q", "-m", "with inner")
    (outer / "inner" / "untracked.txt").write_text("new inside")
    (outer / "inner" / ".env").write_text("SECRET=1")
    place = copy(outer, tmp_path / "copy")
    assert (place / "inner" / "kept.txt").exists()
    assert (place / "inner" / "untracked.txt").read_text() == "new inside"
    assert not (place / "inner" / ".env").exists()
    assert not (place / "inner" / ".git").exists()
    assert git(place, "status", "--porcelain") == ""


def test_a_submodule_whose_git_leads_elsewhere_stays_out(repository: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "inner")
    (outer / "inner" / ".git").write_text(f"gitdir: {repository}/.git\n")
    with open_workspace(outer) as source:
        assert not [name for name in source.files if name.startswith("inner/")]
        assert source.left_out[0].startswith("inner/: ")
        assert "which is not this folder's own repository" in source.left_out[0]


def test_a_sparse_checkout_is_no_heap_of_deletions(repository: Path, tmp_path: Path) -> None:
    (repository / "deep").mkdir()
    (repository / "deep" / "far.txt").write_text("far")
    git(repository, "add", "deep")
    git(repository, "commit", "-q", "-m", "deep", "--", "deep")
    git(repository, "checkout", "-q", "--", ".")
    git(repository, "sparse-checkout", "set", "--no-cone", "/*", "!/deep/")
    assert not (repository / "deep").exists()
    place = copy(repository, tmp_path / "copy")
    assert not (place / "deep").exists()
    assert git(place, "status", "--porcelain") == "?? untracked.txt"
    assert git(place, "ls-files", "-t", "deep") == "S deep/far.txt"
    # One file more that git is told to take for unchanged, there all the same, and one that HEAD lacks.
    (repository / "kept.txt").write_text("as it is here")
    (repository / "deep" / "new.txt").parent.mkdir()
    (repository / "deep" / "new.txt").write_text("new")
    git(repository, "add", "--sparse", "deep/new.txt")
    (repository / "deep" / "new.txt").unlink()
    git(repository, "config", "--worktree", "core.sparseCheckout", "false")  # git looks itself then
    git(repository, "update-index", "--skip-worktree", "kept.txt", "deep/new.txt")
    place = copy(repository, tmp_path / "again")
    assert (place / "kept.txt").read_text() == "as it is here"
    assert git(place, "ls-files", "-t", "deep", "kept.txt") == "S deep/far.txt\nS kept.txt"


def test_a_tag_of_the_branchs_name_and_a_branch_without_commits(repository: Path, tmp_path: Path) -> None:
    tip = git(repository, "rev-parse", "HEAD")
    branch = git(repository, "symbolic-ref", "HEAD")
    git(repository, "tag", branch.removeprefix("refs/heads/"))
    place = copy(repository, tmp_path / "copy")
    assert git(place, "symbolic-ref", "HEAD") == branch
    assert git(place, "rev-parse", "HEAD") == tip
    git(repository, "checkout", "-q", "--orphan", "fresh")
    place = copy(repository, tmp_path / "again")
    assert git(place, "symbolic-ref", "HEAD") == "refs/heads/fresh"
    assert git(place, "rev-parse", branch) == tip
    assert git(place, "ls-files") == ""
    assert (place / "kept.txt").is_file()


def test_a_repository_inside_that_is_no_submodule_is_named(repository: Path) -> None:
    (repository / "nested").mkdir()
    git(repository / "nested", "init", "-q")
    (repository / "nested" / "file").write_text("x")
    with open_workspace(repository) as source:
        assert not any(name.startswith("nested") for name in source.files)
        assert any(
            line.startswith("nested/: is a repository of its own and no submodule")
            for line in source.left_out
        )


CREDENTIALS = (
    ".env", ".env.local", "deploy/.env.production", "id_ed25519", "server.key", "tls/private.pem", ".npmrc",
    ".aws/credentials", "keys/app.p12", "terraform.tfstate", "prod.tfvars", "service-account-prod.json",
    ".kube/config", "secrets.yaml", ".git-credentials",
)  # fmt: skip
HARMLESS = (
    ".env.example", ".env.sample", "id_ed25519.pub", "ca.pem", "ca-certificates.pem", "environment.py",
    "keyboard.py", "monkey.txt", "docs/credentials.md", "example.tfvars.example", "public-key.pem",
)  # fmt: skip


@pytest.mark.parametrize("in_git", [True, False])
def test_what_looks_like_credentials_stays_out_and_is_listed(
    repository: Path, tmp_path: Path, *, in_git: bool
) -> None:
    for name in (*CREDENTIALS, *HARMLESS):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("x")
    if not in_git:
        shutil.rmtree(repository / ".git")
    with open_workspace(repository) as source:
        assert set(source.files).isdisjoint(CREDENTIALS)
        assert set(HARMLESS) <= set(source.files)
        assert {line.partition(":")[0] for line in source.left_out} == set(CREDENTIALS)
        assert source.suspects == ()


def test_tracked_credentials_come_along_and_are_told(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / ".env").write_text("SECRET=1")
    git(repository, "add", ".env")
    (repository / "id_rsa").write_text("x")
    with open_workspace(repository) as source:
        assert source.suspects == (".env",)
        tell_left_out(source)
    said = capsys.readouterr().err
    assert "bot-bottle: left out of the copy: id_rsa: looks like it holds credentials" in said
    assert "warning: git tracks what looks like credentials, so the bottle gets it: .env;" in said


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_a_large_copy_tells_a_terminal_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, on_a_terminal: bool
) -> None:
    now = [0.0]
    monkeypatch.setattr("bot_bottle.backend.copying.time.monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_a_terminal, raising=False)
    progress = CopyProgress()
    progress.begin(4000)
    for number in range(4000):
        now[0] = number * 0.002
        progress.count(1_000_000)
    told = [
        "bot-bottle: copying: 1,501 of 4,000 files, 1,501 MB",
        "bot-bottle: copying: 3,001 of 4,000 files, 3,001 MB",
    ]
    assert capsys.readouterr().err.splitlines() == (told if on_a_terminal else [])


def test_a_long_look_at_a_repository_is_told_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = threading.Event()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("bot_bottle.backend.copying._EVERY_SECONDS", 0.001)
    monkeypatch.setattr(sys.stderr, "flush", said.set, raising=False)
    with CopyProgress().looking():
        assert said.wait(60)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "bot-bottle: copying: gathering files and history, 0 s so far"


def test_a_shallow_clone_stays_shallow_and_whole(repository: Path, tmp_path: Path) -> None:
    git(repository, "commit", "-q", "--allow-empty", "-m", "two")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", str(shallow))
    place = copy(shallow, tmp_path / "copy")
    assert git(place, "rev-list", "--count", "HEAD") == "1"
    git(place, "fsck", "--strict")


def test_a_plain_folder_brings_no_repository_inside_it(repository: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copytree(repository, plain / "nested")
    place = copy(plain, tmp_path / "copy")
    assert (place / "nested" / "kept.txt").exists()
    assert not (place / "nested" / ".git").exists()


def test_the_whole_home_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="--cwd copies a project folder"), open_workspace(tmp_path):
        pytest.fail("the home was opened")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    closed = tmp_path / "closed"
    closed.mkdir() if kind == "folder" else closed.touch()
    closed.chmod(0)
    with pytest.raises(UsageError, match="closed: cannot be copied"), open_workspace(tmp_path) as source:
        send_stream(LocalStreams(), str(tmp_path.parent / "copy"), source.write)
    closed.chmod(0o700)


def test_a_broken_repository_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    with pytest.raises(LaunchError, match="git cannot read this repository"), open_workspace(tmp_path):
        pytest.fail("a broken repository was opened")


def test_cp_in_and_out_round_trip(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file with 'quotes' and spaces").write_bytes(os.urandom(300_000))
    (source / "link").symlink_to("deep")
    guest = tmp_path / "inside dir" / "source"
    bottle = LocalStreams()
    cp_in(bottle, source, str(guest))
    assert (guest / "deep" / "file with 'quotes' and spaces").read_bytes() == next(
        (source / "deep").iterdir()
    ).read_bytes()
    cp_out(bottle, str(guest), tmp_path / "back")
    assert (tmp_path / "back" / "link").is_symlink()
    assert (
        next((tmp_path / "back" / "deep").iterdir()).read_bytes()
        == next((source / "deep").iterdir()).read_bytes()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "inside dir", "source"]


def test_cp_errors_are_sentences_and_leave_nothing(tmp_path: Path) -> None:
    bottle = LocalStreams()
    with pytest.raises(UsageError, match="no such file"):
        cp_in(bottle, tmp_path / "missing", "/tmp/x")
    for guest in ("relative", "/a/../b", "/"):
        with pytest.raises(UsageError, match="absolute"):
            cp_out(bottle, guest, tmp_path / "out")
    with pytest.raises(UsageError, match="could not be copied out"):
        cp_out(bottle, str(tmp_path / "missing"), tmp_path / "out")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        cp_out(bottle, str(tmp_path / "there"), tmp_path / "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def test_a_failing_archive_writer_surfaces(tmp_path: Path) -> None:
    def write(_archive: object) -> None:
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="the disk went away"):
        send_archive(LocalStreams(), str(tmp_path / "x"), write)
