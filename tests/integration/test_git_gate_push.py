"""Pushing through the gate with a real git: what lands lands upstream, what is refused reaches nobody."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.git_gate import early
from bot_bottle.git_gate.early import EarlyWay
from bot_bottle.git_gate.policy import PushPolicy
from tests.support.family import wait_until
from tests.support.git_gate_fixtures import OWN_SECRET
from tests.support.git_lab import Repo

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.git_gate.git import Way
    from bot_bottle.git_gate.scanning import Hit
    from tests.support.git_lab import GitLab

pytestmark = pytest.mark.integration

#: A key by its form, put together here so that this file holds none.
KEY = "AKIA" + "QYLPMN5HHHFPZAM2"
EVERYTHING = PushPolicy(
    branches=("**",), force=True, delete=True, tags=True, default_branch=True, paths=("**",)
)


def refused(lab: GitLab, repo: Repo, *arguments: str) -> str:
    """Push, which must be refused with nothing changed anywhere; gives git's stderr."""
    before, mirror = lab.upstream.refs(), lab.mirror.refs()
    done = repo.run("push", *arguments)
    assert done.returncode != 0, done.stderr
    assert lab.upstream.refs() == before
    assert lab.mirror.refs() == mirror
    assert lab.left_over() == []
    return done.stderr


def records(lab: GitLab, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in lab.audit_path.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_a_clean_push_lands_upstream(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    new = work.commit({"src/c.py": "print('c')\n"})
    done = work.run("push", "origin", "bottle/x")
    assert done.returncode == 0, done.stderr
    assert "remote: bot-bottle: looking through 1 commit," in done.stderr
    assert gate_lab.upstream.refs()["refs/heads/bottle/x"] == new
    assert gate_lab.mirror.refs()["refs/heads/bottle/x"] == new
    assert gate_lab.left_over() == []
    again = work.commit({"src/c.py": "print('cc')\n"})
    work.git("push", "-q", "origin", "bottle/x")
    assert gate_lab.upstream.refs()["refs/heads/bottle/x"] == again
    kept = [oid for name, oid in gate_lab.mirror.refs().items() if name.startswith("refs/bot-bottle/backup/")]
    assert kept == [new]
    assert "bot-bottle" not in work.git("ls-remote", "origin")
    gate_lab.upstream.git("fsck", "--strict")
    assert [line["decision"] for line in records(gate_lab, "git_push")] == ["allow", "allow"]
    assert [line["taken"] for line in records(gate_lab, "git_push_result")] == [True, True]


def connections(lab: GitLab) -> list[int]:
    """Find the processes of this machine that ask the lab's upstream to take a push."""
    wanted, found = f"git-receive-pack '{lab.remote.path}'".encode(), []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if wanted in place.read_bytes():
                found.append(int(place.parent.name))
    return found


def test_the_upstreams_login_is_on_its_way_while_the_push_is_looked_through(
    gate_lab: GitLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves the push, is left alone where it has become old or has ended, and ends with a refusal."""
    taken: list[str] = []
    way, kill = EarlyWay.way, False
    scan = gate_lab.scanner()

    def spy(early: EarlyWay) -> Way:
        taken.append("early")
        return way(early)

    class Waits:
        def scan(self, data: bytes, *, path: str) -> tuple[Hit, ...]:
            wait_until(lambda: connections(gate_lab) != [] or kill, "no login while the push is scanned")
            if kill:
                for pid in connections(gate_lab):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                wait_until(lambda: connections(gate_lab) == [], "it did not end")
            return scan.scan(data, path=path)

    monkeypatch.setattr(EarlyWay, "way", spy)
    gate_lab.scanner = Waits
    gate_lab.start()
    work = gate_lab.clone()
    for number, before in ((1, 30.0), (2, -1.0), (3, 30.0)):
        kill = number == 3
        monkeypatch.setattr(early, "_FRESH_SECONDS", before)
        new = work.commit({"src/c.py": f"print({number})\n"})
        work.git("push", "-q", "origin", "bottle/x")
        assert gate_lab.upstream.refs()["refs/heads/bottle/x"] == new
        assert taken == ["early"], number
    kill = False
    work.commit({"conf/own": f"value = {OWN_SECRET}\n"})
    refused(gate_lab, work, "origin", "bottle/x")
    assert taken == ["early"]
    wait_until(lambda: connections(gate_lab) == [], "the connection of a refused push stays")


def in_a_file(repo: Repo) -> None:
    repo.commit({"conf/aws.ini": f"a = 1\nkey_id = {KEY}\n"})


def in_an_older_commit(repo: Repo) -> None:
    repo.commit({"conf/aws.ini": f"key_id = {KEY}\n"})
    (repo.path / "conf/aws.ini").unlink()
    repo.commit({"other": "x\n"})


def in_a_second_parent(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "side")
    repo.commit({"side.txt": f"{KEY}\n"})
    (repo.path / "side.txt").unlink()
    repo.commit({"clean": "x\n"})
    repo.git("checkout", "-q", "bottle/x")
    repo.commit({"main-line": "x\n"})
    repo.git("merge", "-q", "-m", "merge", "side")


def in_a_merge_itself(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "side")
    repo.commit({"clean": "x\n"})
    repo.git("checkout", "-q", "bottle/x")
    repo.commit({"main-line": "x\n"})
    repo.git("merge", "-q", "--no-commit", "side")
    repo.commit({"evil.txt": f"{KEY}\n"}, "merge")


def in_a_message(repo: Repo) -> None:
    repo.commit({"x": "x"}, f"use {KEY} for it")


def in_an_author(repo: Repo) -> None:
    repo.commit({"x": "x"})
    repo.git("commit", "--amend", "-q", "--no-edit", "--author", f"A <{KEY}@git.test>")


def in_a_file_name(repo: Repo) -> None:
    repo.commit({f"notes/{KEY}.txt": "x"})


def in_an_empty_directory_of_a_tree(repo: Repo) -> None:
    empty = repo.git("mktree", given=b"")
    tree = repo.git("mktree", given=f"040000 tree {empty}\t{KEY}\n".encode())
    commit = repo.git("commit-tree", tree, "-p", "HEAD", "-m", "x")
    repo.git("reset", "-q", "--hard", commit)


def in_a_symlink(repo: Repo) -> None:
    (repo.path / "link").symlink_to(f"/{KEY}/x")
    repo.commit({})


def in_a_binary(repo: Repo) -> None:
    repo.commit({"image.bin": os.urandom(5000) + b"\0" + KEY.encode() + b"\0" + os.urandom(5000)})


def far_into_a_large_file(repo: Repo) -> None:
    repo.commit({"large.txt": "an ordinary line of text\n" * 90_000 + f"{KEY}\n" + "more\n" * 1000})


def beside_an_ignore_comment(repo: Repo) -> None:
    settings = "[allowlist]\nregexes = ['.*']\n"
    files = {".gitleaks.toml": settings, ".betterleaks.toml": settings, ".gitleaksignore": "*\n"}
    repo.commit({**files, "x.py": f'key = "{KEY}"  # gitleaks:allow betterleaks:allow\n'})


def the_bottles_own(repo: Repo) -> None:
    repo.commit({"x.txt": f"value {OWN_SECRET}\n"})


def the_bottles_own_encoded(repo: Repo) -> None:
    repo.commit({"x.txt": base64.b64encode(f"value {OWN_SECRET}".encode()) + b"\n"})


def far_into_archives(repo: Repo) -> None:
    """In a member of a zip that is in a tar that is packed, behind more than a scan looks at once."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("noise", os.urandom(300_000))
        packed.writestr("etc/key.ini", f"a = 1\nkey_id = {KEY}\n")
    with tarfile.open(fileobj=outer, mode="w:bz2") as archive:
        member = tarfile.TarInfo("inner.zip")
        member.size = inner.tell()
        inner.seek(0)
        archive.addfile(member, inner)
    repo.commit({"dist/all.tar.bz2": outer.getvalue()})


def in_a_lfs_pointer(repo: Repo) -> None:
    repo.commit(
        {"x.psd": f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1\n# {KEY}\n"}
    )


def in_a_file_of_many_names(repo: Repo) -> None:
    """What only the last of the names makes a secret."""
    content = 'administrator_login_password = "Vh7-qTz2.Lm9w"\n'
    repo.commit(dict.fromkeys((*(f"a.k{number}" for number in range(12)), "z.tf"), content))


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (in_a_file_of_many_names, "z.tf:1"),
        (in_a_file, "conf/aws.ini:2"),
        (in_an_older_commit, "conf/aws.ini:1"),
        (in_a_second_parent, "side.txt:1"),
        (in_a_merge_itself, "evil.txt:1"),
        (in_a_message, "commit message or people"),
        (in_an_author, "commit message or people"),
        (in_a_file_name, "name of a file"),
        (in_an_empty_directory_of_a_tree, "name of a file"),
        (in_a_symlink, "link:1"),
        (in_a_binary, "image.bin"),
        (far_into_archives, "dist/all.tar.bz2!etc/key.ini:2"),
        (far_into_a_large_file, "large.txt:90001"),
        (beside_an_ignore_comment, "x.py:1"),
        (the_bottles_own, "x.txt:1"),
        (the_bottles_own_encoded, "x.txt"),
        (in_a_lfs_pointer, "x.psd:4"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_g6_g7_a_secret_anywhere_in_the_push_is_found(
    gate_lab: GitLab, plant: Callable[[Repo], None], words: str
) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    plant(work)
    said = refused(gate_lab, work, "origin", "bottle/x")
    assert words in said
    assert "rule git_gate.scan (secret_found)" in said
    assert KEY not in said
    assert OWN_SECRET not in said
    assert "! [remote rejected] bottle/x -> bottle/x" in said
    assert KEY not in gate_lab.audit_path.read_text()
    assert [line["reason"] for line in records(gate_lab, "git_push")] == ["secret_found"]
    assert gate_lab.upstream.run("cat-file", "-e", work.git("rev-parse", "HEAD")).returncode != 0


def test_g6_a_secret_in_a_branchs_name(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    work.commit({"x": "x"})
    assert "name of a ref" in refused(gate_lab, work, "origin", f"HEAD:refs/heads/bottle/{KEY}")


def test_g6_a_secret_in_a_tags_message_and_in_a_submodules_url(gate_lab: GitLab) -> None:
    gate_lab.start(policy=EVERYTHING)
    work = gate_lab.clone()
    work.git("tag", "-a", "v1", "-m", f"key {KEY}")
    assert "tag:" in refused(gate_lab, work, "origin", "v1")
    head = work.git("rev-parse", "HEAD")
    modules = f'[submodule "m"]\n\tpath = m\n\turl = https://x:{KEY}@git.test/m.git\n'
    (work.path / ".gitmodules").write_text(modules)
    work.git("update-index", "--add", "--cacheinfo", f"160000,{head},m")
    work.git("add", ".gitmodules")
    work.git("commit", "-q", "-m", "module")
    assert ".gitmodules:3" in refused(gate_lab, work, "origin", "bottle/x")


def test_g6_a_secret_in_what_the_mirror_has_but_no_ref_of_the_upstream(gate_lab: GitLab) -> None:
    """Once on a branch that was taken away for it, and still with the gate and the client."""
    writer = Repo(gate_lab.folder / "seed-upstream.git", gate_lab.env)
    writer.git("checkout", "-q", "-b", "leaked")
    leaked = writer.commit({"conf.ini": f"key_id = {KEY}\n"})
    writer.git("push", "-q", str(gate_lab.upstream.path), "leaked")
    gate_lab.start()
    work = gate_lab.clone()
    gate_lab.upstream.git("update-ref", "-d", "refs/heads/leaked")
    work.git("fetch", "-q", "origin", "main")
    assert gate_lab.mirror.run("cat-file", "-e", leaked).returncode == 0
    work.git("reset", "-q", "--hard", leaked)
    (work.path / "conf.ini").unlink()
    work.commit({"clean": "x"})
    assert "conf.ini:1" in refused(gate_lab, work, "origin", "bottle/x")


def test_g6_a_tag_of_a_tree_whose_names_nobody_would_read(gate_lab: GitLab) -> None:
    gate_lab.start(policy=EVERYTHING)
    work = gate_lab.clone()
    known = work.git("rev-parse", "HEAD:README.md")
    tree = work.git("mktree", given=f"100644 blob {known}\t{KEY}\n".encode())
    work.git("tag", "-a", "inner", "-m", "x", tree)
    work.git("tag", "-a", "outer", "-m", "x", "inner")
    for what in (f"{tree}:refs/tags/a", "inner", "outer"):
        assert "a tag leads to a commit" in refused(gate_lab, work, "origin", what)


def test_after_the_secret_is_gone_the_push_lands(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    in_an_older_commit(work)
    refused(gate_lab, work, "origin", "bottle/x")
    work.git("reset", "-q", "--soft", "origin/main")
    new = work.commit({"other": "x\n"})
    work.git("push", "-q", "origin", "bottle/x")
    assert gate_lab.upstream.refs()["refs/heads/bottle/x"] == new


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["HEAD:refs/heads/main"], "AllowDefaultBranch"),
        (["HEAD:refs/heads/feature"], "Branches"),
        (["HEAD:refs/tags/v9"], "AllowTags"),
        (["HEAD:refs/notes/commits"], "only branches and tags"),
        (["HEAD:refs/replace/" + "a" * 40], "only branches and tags"),
        (["HEAD:refs/pull/1/head"], "only branches and tags"),
        (["HEAD:refs/bot-bottle/backup/x"], "only branches and tags"),
        (["--delete", "bottle/there"], "AllowDelete"),
        (["--force", "origin/main~1:refs/heads/bottle/there"], "AllowForce"),
        (["--atomic", "HEAD:refs/heads/bottle/ok", "HEAD:refs/heads/main"], "AllowDefaultBranch"),
        (["HEAD:refs/heads/bottle/ok", "HEAD:refs/heads/main"], "another ref of this push was refused"),
    ],
    ids=str,
)
def test_g5_what_may_not_be_moved(gate_lab: GitLab, arguments: list[str], rule: str) -> None:
    gate_lab.upstream.git("update-ref", "refs/heads/bottle/there", "refs/heads/main")
    gate_lab.start()
    work = gate_lab.clone()
    work.commit({"x": "x"})
    assert rule in refused(gate_lab, work, "origin", *arguments)


def test_what_the_manifest_allows_goes_through(gate_lab: GitLab) -> None:
    gate_lab.upstream.git("update-ref", "refs/heads/there", "refs/heads/main")
    gate_lab.start(policy=EVERYTHING)
    work = gate_lab.clone()
    new = work.commit({".github/workflows/ci.yml": "on: push\n"})
    work.git("tag", "-a", "v1", "-m", "one")
    work.git("push", "-q", "--atomic", "origin", "HEAD:main", "v1", ":there")
    refs = gate_lab.upstream.refs()
    assert refs["refs/heads/main"] == new
    assert "refs/tags/v1" in refs
    assert "refs/heads/there" not in refs
    work.git("reset", "-q", "--hard", "HEAD~1")
    other = work.commit({"y": "y"})
    work.git("push", "-q", "--force", "origin", "HEAD:main")
    assert gate_lab.upstream.refs()["refs/heads/main"] == other
    assert new in gate_lab.mirror.refs().values()  # under a backup ref


@pytest.mark.parametrize("path", [".github/workflows/ci.yml", ".gitlab-ci.yml", ".gitmodules"])
def test_f3_protected_paths_need_the_operators_word(gate_lab: GitLab, path: str) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    work.commit({path: "on: push\n"})
    work.git("rm", "-q", path)
    work.git("commit", "-q", "-m", "gone again")
    said = refused(gate_lab, work, "origin", "bottle/x")
    assert "AllowPaths" in said
    assert path in said


def test_f3_no_link_submodule_or_file_stands_in_for_a_protected_folder(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    base = work.commit({"ci/config.yml": "steps: []\n", "ci/workflows/x.yml": "on: push\n"})
    target = work.git("hash-object", "-w", "--stdin", given=b"ci")
    places = (".buildkite", ".circleci", ".github", ".github/actions", ".GitHub", ".git\u200chub/workflows")
    for mode, oid in (("120000", target), ("100644", target), ("160000", base)):
        for place in places if mode == "120000" else places[2:3]:
            work.git("read-tree", base)
            work.git("update-index", "--add", "--cacheinfo", f"{mode},{oid},{place}")
            tip = work.git("commit-tree", "-p", base, "-m", "m", work.git("write-tree"))
            work.git("update-ref", "HEAD", tip)
            said = refused(gate_lab, work, "origin", "HEAD:bottle/x")
            assert "AllowPaths" in said, (mode, place)
            assert place.replace("\u200c", "?") in said


def test_f3_a_protected_file_is_not_taken_away_and_a_folder_beside_it_is(gate_lab: GitLab) -> None:
    seed = Repo(gate_lab.folder / "seed-upstream.git", gate_lab.env)
    seed.commit({".github/workflows/ci.yml": "on: push\n", ".gitea/notes/x.md": "x\n"})
    seed.git("push", "-q", str(gate_lab.upstream.path), "main")
    gate_lab.start()
    work = gate_lab.clone()
    start = work.git("rev-parse", "HEAD")
    work.git("rm", "-q", "-r", ".gitea")
    work.git("commit", "-q", "-m", "a folder goes, whole")
    assert work.run("push", "origin", "HEAD:bottle/x").returncode == 0
    for gone in (".github/workflows/ci.yml", ".github"):
        work.git("reset", "-q", "--hard", start)
        work.git("rm", "-q", "-r", gone)
        work.git("commit", "-q", "-m", "gone")
        said = refused(gate_lab, work, "origin", "HEAD:bottle/y")
        assert "AllowPaths" in said
        assert ".github/workflows/ci.yml" in said


def test_f3_no_merge_brings_an_old_ci_file_back_or_takes_one_away(gate_lab: GitLab) -> None:
    """Each has the file as one of its parents has it, so that no commit of the push changes it."""
    ci = ".github/workflows/ci.yml"
    seed = Repo(gate_lab.folder / "seed-upstream.git", gate_lab.env)
    old = seed.commit({ci: "on: pull_request_target\n"})
    seed.commit({ci: "on: pull_request\n", "a.txt": "a\n"})
    tip = seed.commit({"b.txt": "b\n"})
    seed.git("push", "-q", str(gate_lab.upstream.path), "main", f"{old}:refs/heads/old")
    gate_lab.start()
    work = gate_lab.clone()

    def merge(tree: str, *parents: str) -> str:
        sides = [word for parent in parents for word in ("-p", parent)]
        return work.git("commit-tree", *sides, "-m", "m", work.git("rev-parse", f"{tree}^{{tree}}"))

    empty = work.git("commit-tree", "-m", "another root", work.git("mktree", given=b""))
    work.git("read-tree", tip)
    work.git("rm", "-q", "--cached", ci)
    without = work.git("write-tree")
    mine = work.commit({"mine.txt": "mine\n"})
    for evil in (
        merge(old, tip, old),
        merge(old, mine, tip, old),
        work.git("commit-tree", "-p", tip, "-p", empty, "-m", "m", without),
    ):
        work.git("update-ref", "HEAD", evil)
        said = refused(gate_lab, work, "origin", "HEAD:bottle/x")
        assert "AllowPaths" in said
        assert f"merge {evil[:12]} drops what a parent of it changed in {ci}" in said
    # Bringing a branch up to the upstream's newer CI file is what merges are for.
    work.git("checkout", "-q", "-f", "-B", "bottle/good", old)
    work.commit({"mine.txt": "mine\n"})
    work.git("merge", "-q", "-m", "up to date", tip)
    assert work.run("push", "origin", "HEAD:bottle/good").returncode == 0


def test_the_upstreams_refusal_is_told_in_its_own_words(gate_lab: GitLab) -> None:
    hook = gate_lab.upstream.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'closed for the weekend' >&2\nexit 1\n")
    hook.chmod(0o755)
    gate_lab.start()
    work = gate_lab.clone()
    work.commit({"x": "x"})
    said = refused(gate_lab, work, "origin", "bottle/x")
    assert "upstream:  closed for the weekend" in said
    assert "the upstream refused: [remote rejected] (pre-receive hook declined)" in said
    assert [line["taken"] for line in records(gate_lab, "git_push_result")] == [False]


def test_a_push_on_an_old_state_is_told_to_fetch_first(gate_lab: GitLab) -> None:
    gate_lab.start()
    one, other = gate_lab.clone("one"), gate_lab.clone("other")
    one.commit({"x": "x"})
    one.git("push", "-q", "origin", "bottle/x")
    other.commit({"y": "y"})
    assert "fetch first" in refused(gate_lab, other, "origin", "bottle/x")


def test_what_somebody_else_pushed_meanwhile_is_not_overwritten(gate_lab: GitLab) -> None:
    gate_lab.start(policy=EVERYTHING)
    work = gate_lab.clone()
    seed = Repo(gate_lab.folder / "seed-upstream.git", gate_lab.env)
    theirs = seed.commit({"theirs": "x"})
    seed.git("push", "-q", str(gate_lab.upstream.path), "main")
    work.commit({"ours": "x"})
    done = work.run("push", "origin", "HEAD:main")
    assert done.returncode != 0
    assert "somebody else has moved it since (fetch first)" in done.stderr
    assert gate_lab.upstream.refs()["refs/heads/main"] == theirs
    assert "(fetch first)" in work.run("push", "origin", "HEAD:main").stderr  # now git itself knows
    work.git("fetch", "-q")
    assert work.git("rev-parse", "origin/main") == theirs


def test_a_shallow_clone_can_push_and_what_is_incomplete_cannot(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone("work", "--depth=1")
    new = work.commit({"x": "x"})
    work.git("push", "-q", "origin", "bottle/x")
    assert gate_lab.upstream.refs()["refs/heads/bottle/x"] == new


def test_no_scanner_no_push(gate_lab: GitLab) -> None:
    def broken() -> Any:
        raise ImportError("no engine")

    gate_lab.scanner = broken
    gate_lab.start()
    work = gate_lab.clone()
    work.commit({"x": "x"})
    assert "scanner_unavailable" in refused(gate_lab, work, "origin", "bottle/x")


def test_a_scanner_that_breaks_refuses(gate_lab: GitLab) -> None:
    class Breaks:
        def scan(self, data: bytes, *, path: str) -> Any:
            raise RuntimeError("broken")

    gate_lab.scanner = Breaks
    gate_lab.start()
    work = gate_lab.clone()
    work.commit({"x": "x"})
    assert "scanner_unavailable" in refused(gate_lab, work, "origin", "bottle/x")


def test_bounds_name_their_key(gate_lab: GitLab) -> None:
    gate_lab.start(policy=PushPolicy(max_bytes=200_000, max_objects=50))
    work = gate_lab.clone()
    work.commit({"large": os.urandom(300_000)})
    assert "MaxPushBytes" in refused(gate_lab, work, "origin", "bottle/x")
    work.git("reset", "-q", "--hard", "origin/main")
    work.commit({f"f{n}": f"{n}\n" for n in range(60)})
    assert "MaxPushObjects" in refused(gate_lab, work, "origin", "bottle/x")
    work.git("reset", "-q", "--hard", "origin/main")
    work.commit({"zeros": bytes(3_000_000)})  # three kilobytes of pack
    assert "MaxPushBytes" in refused(gate_lab, work, "origin", "bottle/x")


def test_push_options_and_signed_pushes_are_not_taken(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    work.commit({"x": "x"})
    assert "does not support push options" in refused(gate_lab, work, "-o", "ci.skip", "origin", "bottle/x")
    assert "does not support --signed push" in refused(gate_lab, work, "--signed", "origin", "bottle/x")


def test_trees_that_fsck_refuses(gate_lab: GitLab) -> None:
    """Names that some file system takes for ``.git``, and a link where git looks for its settings."""
    gate_lab.start()
    work = gate_lab.clone()
    blob = work.git("hash-object", "-w", "--stdin", given=b"x")
    for entry, rule in (
        ("100644 blob {}\t.git", "hasDotgit"),
        ("100644 blob {}\t.GiT", "hasDotgit"),
        ("100644 blob {}\tGIT~1", "hasDotgit"),
        ("100644 blob {}\t.g\u200cit", "hasDotgit"),
        ("120000 blob {}\t.gitmodules", "gitmodulesSymlink"),
    ):
        tree = work.git("mktree", given=f"{entry.format(blob)}\n".encode())
        commit = work.git("commit-tree", tree, "-p", "HEAD", "-m", "x")
        assert rule in refused(gate_lab, work, "origin", f"{commit}:refs/heads/bottle/x")


def test_a_large_push_in_chunks(gate_lab: GitLab, tmp_path: Path) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    words = b"".join(b"line %d of an ordinary text\n" % n for n in range(60_000))
    new = work.commit({"a": words, "b": words[::-1]})
    work.git("-c", "http.postBuffer=70000", "-c", "core.compression=0", "push", "-q", "origin", "bottle/x")
    assert gate_lab.upstream.refs()["refs/heads/bottle/x"] == new


def test_the_upstream_away_at_a_push(gate_lab: GitLab) -> None:
    gate_lab.start()
    work = gate_lab.clone()
    work.commit({"x": "x"})
    gate_lab.upstream.path.rename(gate_lab.folder / "away")
    for words in ("the upstream did not take it", "cannot be reached"):  # then it is asked anew
        done = work.run("push", "origin", "bottle/x")
        assert done.returncode != 0
        assert words in done.stderr
    assert gate_lab.left_over() == []
