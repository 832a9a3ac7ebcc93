"""``diff`` and ``pull`` on the work of a kept bottle, with real git on both sides."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle import bottle_state, paths
from bot_bottle.audit import AuditLog
from bot_bottle.audit_copy import complete
from bot_bottle.cli.cleanup import remove_states
from bot_bottle.git_gate import inspection
from bot_bottle.operator_log import operator_log
from bot_bottle.retrieval import uncommitted
from bot_bottle.workspace import open_workspace
from tests.support.kept_work import IDENTITY, KeptWork, git
from tests.support.outside import REPO
from tests.support.own_terminal import OwnTerminal

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

KEY = "ghp_" + "a1B2c3D4e5F6" * 3


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptWork:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    return KeptWork(tmp_path)


def test_commits_come_home_as_a_branch_and_nothing_else_changes(work: KeptWork) -> None:
    tip = work.commit("src/new.py", "print(1)\n", "add new")
    done = work.run("pull", IDENTITY)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == f"bottle/{IDENTITY} -> {tip[:12]}: 1 commit, 1 file"
    assert "add new  (claims to be by x@git.test <x@git.test>)" in done.out
    assert work.branch() == tip
    assert git(work.project, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(work.project, "rev-parse", "HEAD") == work.first
    assert git(work.project, "status", "--porcelain") == ""
    assert git(work.project, "fsck", "--strict") == ""
    assert work.run("pull", IDENTITY).out == f"bottle/{IDENTITY} is there already, at {tip[:12]}\n"
    assert work.run("pull", IDENTITY, "--branch", "other/name").code == 0
    assert work.branch("bottle/other/name") == tip


def test_what_was_pulled_is_on_record_and_forks_no_chain(work: KeptWork, tmp_path: Path) -> None:
    """Even where the bottle's own log is completed from elsewhere afterwards, as docker's may have to be."""
    whole = AuditLog.open(tmp_path / "elsewhere")
    whole.append("request", decision="allow")
    log = paths.audit_path(IDENTITY)
    log.parent.mkdir(mode=0o700)
    log.write_bytes((tmp_path / "elsewhere").read_bytes())
    whole.append("request", decision="deny")
    whole.close()
    bad = work.commit("conf.py", f"token = '{KEY}'\n", "oops")
    assert work.run("pull", IDENTITY).code == 1
    assert work.run("pull", IDENTITY, "--accept-findings").code == 0
    assert work.run("pull", IDENTITY).code == 0  # nothing more is done, so nothing more is recorded
    complete(log, tmp_path / "elsewhere")
    done = work.run("audit", "verify", IDENTITY)
    assert (done.code, done.out.count(": ok: ")) == (0, 2), done.out
    shown = json.loads(work.run("audit", IDENTITY, "--json").out)
    assert [one["event"] for one in shown if one.get("by") != "operator"] == ["request", "request", "end"]
    refusal, taken = [one for one in shown if one.get("by") == "operator"]
    assert (refusal["decision"], refusal["reason"], refusal["new"]) == ("deny", "secret_found", bad)
    assert (taken["decision"], taken["branch"], taken["accepted_findings"]) == (
        "allow",
        f"bottle/{IDENTITY}",
        True,
    )
    assert KEY not in operator_log(IDENTITY).read_text()
    text = operator_log(IDENTITY).read_text()
    operator_log(IDENTITY).write_text(text.replace('"deny"', '"allow"'))
    done = work.run("audit", "verify", IDENTITY)
    assert (done.code, f"{IDENTITY}, operator: BROKEN: line 1" in done.out) == (1, True)


def test_what_cannot_be_put_on_record_is_not_pulled(work: KeptWork) -> None:
    work.commit("a.txt", "a\n")
    operator_log(IDENTITY).mkdir(parents=True)
    done = work.run("pull", IDENTITY)
    assert (done.code, work.branch()) == (4, "")
    assert "this cannot be put on record" in done.err


def test_packed_objects_and_refs_come_home_too(work: KeptWork) -> None:
    for number in range(5):
        tip = work.commit(f"f{number}", f"{number}\n" * 50)
    git(work.workspace, "gc", "-q")
    assert list((work.workspace / ".git" / "objects" / "pack").glob("*.pack"))
    done = work.run("pull", IDENTITY, "--branch", "packed/work")
    assert done.code == 0, done.err
    assert work.branch("bottle/packed/work") == tip


def test_what_is_not_committed_comes_as_one_more_commit_when_asked(work: KeptWork) -> None:
    tip = work.commit("a.txt", "a\n")
    (work.workspace / "kept.txt").write_text("first\nchanged\n")
    (work.workspace / "a.txt").unlink()
    (work.workspace / "run.sh").write_text("#!/bin/sh\n")
    (work.workspace / "run.sh").chmod(0o755)
    (work.workspace / "link").symlink_to("../../etc/passwd")
    (work.workspace / "x.log").write_text("ignored")
    (work.workspace / "build").mkdir()
    (work.workspace / "build" / "out").write_text("ignored")
    (work.workspace / "staged.txt").write_text("staged\n")
    git(work.workspace, "add", "staged.txt")

    assert "5 uncommitted changes stay there (--uncommitted)" in work.run("pull", IDENTITY).err
    assert work.branch() == tip
    done = work.run("pull", IDENTITY, "--uncommitted")
    assert done.code == 0, done.err
    snapshot = work.branch()
    assert git(work.project, "rev-parse", f"{snapshot}^") == tip
    assert git(work.project, "log", "-1", "--format=%an <%ae>", snapshot).startswith(
        "bot-bottle <uncommitted@"
    )
    assert work.kept_files(snapshot) == [".gitignore", "kept.txt", "link", "run.sh", "staged.txt"]
    modes = git(work.project, "ls-tree", snapshot, "link", "run.sh")
    assert modes.startswith("120000 blob ")
    assert "\n100755 blob " in modes
    again = work.run("pull", IDENTITY, "--uncommitted")
    assert "is there already" in again.out  # the same work is the same commit


def test_what_the_index_keeps_out_of_sight_is_no_deletion_and_what_it_tracks_is_work(
    work: KeptWork, tmp_path: Path
) -> None:
    """A sparse checkout stays whole in what comes home, and what was added by force is no ignored file."""
    (work.project / "deep").mkdir()
    (work.project / "deep" / "far.txt").write_text("far")
    git(work.project, "add", "deep")
    git(work.project, "commit", "-q", "-m", "deep")
    git(work.project, "sparse-checkout", "set", "--no-cone", "/*", "!/deep/")
    shutil.rmtree(work.workspace)
    work.workspace.mkdir()
    with open_workspace(work.project) as source, (tmp_path / "copy.tar").open("w+b") as sink:
        source.write(sink)
        sink.seek(0)
        with tarfile.open(fileobj=sink) as archive:
            archive.extractall(work.workspace, filter="data")
    (work.workspace / "kept.txt").unlink()
    (work.workspace / "x.log").write_text("forced")
    (work.workspace / "y.log").write_text("ignored")
    git(work.workspace, "add", "-f", "x.log")
    done = work.run("diff", IDENTITY, "--json")
    assert {one["path"]: one["status"] for one in json.loads(done.out)["files"]} == {
        "kept.txt": "deleted",
        "x.log": "added",
    }, done.err
    assert work.run("pull", IDENTITY, "--uncommitted").code == 0
    assert work.kept_files(work.branch()) == [".gitignore", "deep/far.txt", "x.log"]


def test_an_index_that_cannot_be_read_is_said_and_work_that_stays_in_the_bottle_is_named(
    work: KeptWork,
) -> None:
    (work.workspace / "kept.txt").write_text("put away\n")
    git(work.workspace, "stash")
    git(work.workspace, "worktree", "add", "-q", "other", "-b", "feature")
    deep = work.workspace.joinpath(*["d"] * 201)
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    (work.workspace / "new.txt").write_text("new\n")
    (work.workspace / ".git" / "index").write_bytes(b"DIRC" + b"\xff" * 60)
    done = work.run("pull", IDENTITY, "--uncommitted")
    assert done.code == 0, done.err
    assert work.kept_files(work.branch()) == [".gitignore", "kept.txt", "new.txt"]
    for words in (
        "left out: .git/index: cannot be read",
        "left out: other/: is another work tree; have the agent commit in it, and bring its branch with",
        "d/d/: cannot be read, or lies too deep",
        "1 stash of the bottle's git is not taken along; see one: bot-bottle diff worker-abcde --from",
    ):
        assert words in done.err, (words, done.err)


def test_a_stash_comes_home_as_a_branch_of_its_own(work: KeptWork) -> None:
    for name in ("one", "two"):
        (work.workspace / "kept.txt").write_text(f"{name}\n")
        (work.workspace / f"{name}.txt").write_text("untracked\n")
        git(work.workspace, "stash", "--include-untracked")
    stashes = [git(work.workspace, "rev-parse", f"stash@{{{number}}}") for number in range(2)]
    nothing = work.run("pull", IDENTITY)
    assert nothing.code == 0
    assert "2 stashes of the bottle's git are not taken along" in nothing.err
    assert json.loads(work.run("diff", IDENTITY, "--json").out)["stashes"] == stashes
    assert "+two" in work.run("diff", IDENTITY, "--from", "stash@{0}").out
    git(work.workspace, "pack-refs", "--all")
    for number, name in enumerate(("two", "one")):
        done = work.run("pull", IDENTITY, "--from", f"stash@{{{number}}}")
        assert done.code == 0, done.err
        branch = f"bottle/{IDENTITY}-stash-{stashes[number][:8]}"
        assert work.branch(branch) == stashes[number], done.out
        assert git(work.project, "show", f"{branch}:kept.txt") == name
        assert git(work.project, "show", f"{branch}^3:{name}.txt") == "untracked"
    assert "stash" not in work.run("pull", IDENTITY).err
    assert "the bottle has no branch 'stash@{7}'" in work.run("pull", IDENTITY, "--from", "stash@{7}").err
    (work.workspace / ".git/logs/refs/stash").unlink()  # then the ref alone tells of the newest
    assert json.loads(work.run("diff", IDENTITY, "--json").out)["stashes"] == stashes[:1]


def test_a_pull_that_cannot_be_written_leaves_nothing(work: KeptWork, tmp_path: Path) -> None:
    """As on a full disk: the operator's git may write no file of more than a few KiB."""
    (work.workspace / "large").write_bytes(os.urandom(300_000))
    git(work.workspace, "add", "large")
    git(work.workspace, "commit", "-q", "-m", "large")
    real = shutil.which("git")
    shim = tmp_path / "bin" / "git"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\ncase "$*" in *index-pack*) ulimit -f 64 ;; esac\nexec {real} "$@"\n')
    shim.chmod(0o755)
    before = sorted(path for path in (work.project / ".git").rglob("*") if path.is_file())
    done = work.run("pull", IDENTITY, PATH=f"{shim.parent}:{os.environ['PATH']}")
    assert (done.code, work.branch()) == (4, ""), done.err
    assert sorted(path for path in (work.project / ".git").rglob("*") if path.is_file()) == before
    assert work.run("pull", IDENTITY).code == 0
    assert git(work.project, "fsck", "--strict") == ""
    assert not list((work.project / ".git" / "objects").glob("tmp_objdir*"))


def test_a_bottle_that_is_removed_while_it_is_read_brings_no_deletions(
    work: KeptWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at an end with exit code 0, in whose midst somebody pulls: first the mark goes, then the work."""
    real = uncommitted.commit_folder

    async def amid_the_removal(*given: Any, **more: Any) -> object:
        bottle_state.clear_preserve_marker(IDENTITY)
        (work.workspace / "kept.txt").unlink()
        return await real(*given, **more)

    monkeypatch.setattr("bot_bottle.retrieval.arrival.commit_folder", amid_the_removal)
    done = work.run("pull", IDENTITY, "--uncommitted")
    assert (done.code, work.branch()) == (2, "")
    assert f"{IDENTITY} was being removed while its work was read; nothing was taken" in done.err


def test_a_branch_that_is_checked_out_during_the_scan_is_not_moved(
    work: KeptWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = work.commit("a.txt", "a\n")
    assert work.run("pull", IDENTITY).code == 0
    work.commit("b.txt", "b\n")
    real = inspection.inspect

    async def amid_the_scan(*given: Any, **more: Any) -> object:
        git(work.project, "checkout", "-q", f"bottle/{IDENTITY}")
        return await real(*given, **more)

    monkeypatch.setattr("bot_bottle.retrieval.pull.inspect", amid_the_scan)
    done = work.run("pull", IDENTITY)
    assert (done.code, work.branch()) == (2, first)
    assert "is checked out in" in done.err
    assert git(work.project, "status", "--porcelain") == ""
    decisions = [json.loads(line).get("decision") for line in operator_log(IDENTITY).read_text().splitlines()]
    assert decisions.count("allow") == 1  # the first pull's alone


def test_cleanup_leaves_what_a_session_has_put_work_into_meanwhile(
    work: KeptWork, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between the list that the operator says yes to and the removal there is as much time as they take."""
    listed = replace(bottle_state.state_of(IDENTITY), status="unfinished")
    assert remove_states((listed,)) == 1
    assert "holds work by now" in capsys.readouterr().err
    assert (work.workspace / "kept.txt").is_file()


def test_where_nothing_is_committed_the_sentence_says_what_would_help(work: KeptWork) -> None:
    nothing = work.run("pull", IDENTITY)
    assert (nothing.code, nothing.out) == (
        0,
        "nothing to bring: the bottle has nothing that you do not have\n",
    )
    told = json.loads(work.run("pull", IDENTITY, "--json").out)
    assert (told["is"], told["nothing"]) == (None, "the bottle has nothing that you do not have")
    same = work.run("diff", IDENTITY)
    assert (same.code, same.out) == (0, "")
    assert "nothing was changed" in same.err
    (work.workspace / "kept.txt").write_text("changed\n")
    refused = work.run("pull", IDENTITY)
    assert refused.code == 2
    assert "1 change is uncommitted, bring it with --uncommitted" in refused.err
    assert work.branch() == ""


def test_a_secret_in_any_commit_keeps_the_work_out_until_it_is_accepted(work: KeptWork) -> None:
    bad = work.commit("conf.py", f"token = '{KEY}'\n", "oops")
    work.commit("conf.py", "token = None\n", "removed again")
    done = work.run("pull", IDENTITY)
    assert done.code == 1
    assert f"commit {bad[:12]}, conf.py:1" in done.err
    assert KEY not in done.out + done.err
    assert work.branch() == ""
    assert git(work.project, "cat-file", "--batch-check", given=f"{bad}\n".encode()) == f"{bad} missing"
    listed = json.loads(work.run("pull", IDENTITY, "--json").out)
    assert (listed["is"], bool(listed["findings"])) == ("", True)
    assert work.run("pull", IDENTITY, "--accept-findings").code == 0
    assert work.branch() != ""


def test_a_secret_of_the_operators_own_is_known_to_the_scan(work: KeptWork) -> None:
    for folder, text in {
        "bottles/b.md": "agent_provider: {template: command, argv: [x]}\n"
        "egress: {routes: [{host: a.test, auth: {scheme: Bearer, token_ref: MY_TOKEN}}]}\n"
        "env: {PHRASE: '${OTHER_PHRASE}'}\nguard: [PHRASE]\n",
        "agents/worker.md": "bottle: b\n",
    }.items():
        place = work.home / folder
        place.parent.mkdir(mode=0o700, exist_ok=True)
        place.write_text(f"---\n{text}---\n")
        place.chmod(0o600)
    value = "correct-horse-battery-staple"
    phrase = "staples-and-batteries-for-horses"
    work.commit("notes.txt", f"it is {value} or {phrase}\n")
    for name, secret in (("MY_TOKEN", value), ("OTHER_PHRASE", phrase)):
        done = work.run("pull", IDENTITY, **{name: secret})
        assert done.code == 1
        assert f"own-secret:{name.replace('OTHER_', '')}" in done.err
        assert secret not in done.out + done.err


def test_a_branch_in_use_or_with_commits_of_its_own_is_left_alone(work: KeptWork) -> None:
    tip = work.commit("a.txt", "a\n")
    git(work.project, "switch", "-q", "-c", f"bottle/{IDENTITY}")
    refused = work.run("pull", IDENTITY)
    assert (refused.code, "is checked out in" in refused.err) == (2, True)
    git(work.project, "commit", "-q", "--allow-empty", "-m", "mine")
    mine = git(work.project, "rev-parse", "HEAD")
    git(work.project, "switch", "-q", "main")
    refused = work.run("pull", IDENTITY)
    assert (refused.code, "commits that this would drop" in refused.err) == (2, True)
    assert work.branch() == mine
    done = work.run("pull", IDENTITY, "--replace")
    assert f"(was {mine[:12]})" in done.out
    assert work.branch() == tip


@pytest.mark.parametrize("name", ["a..b", "-x y", "a.lock", "x\x1b[31m", ""])
def test_a_branch_name_that_git_refuses_is_a_sentence(work: KeptWork, name: str) -> None:
    work.commit("a.txt", "a\n")
    done = work.run("pull", IDENTITY, "--branch", name)
    if name:
        assert done.code == 2
        assert "is no name for a branch" in done.err
        assert "\x1b" not in done.err
    else:
        assert done.code == 0  # an empty name is none


def test_other_branches_and_folders_of_the_bottle_can_be_named(work: KeptWork) -> None:
    git(work.workspace, "switch", "-q", "-c", "side")
    tip = work.commit("side.txt", "side\n")
    git(work.workspace, "switch", "-q", "main")
    assert "more branches of its own (--from): side" in work.run("diff", IDENTITY).err
    assert work.run("pull", IDENTITY, "--from", "side").code == 0
    assert work.branch() == tip
    missing = work.run("pull", IDENTITY, "--from", "none")
    assert "the bottle has no branch 'none'; those that exist: main, side" in missing.err

    inner = work.workspace / "tools" / "inner"
    git(work.workspace, "clone", "-q", str(work.project), str(inner))
    (inner / "inner.txt").write_text("inner\n")
    git(inner, "add", ".")
    git(inner, "commit", "-q", "-m", "inner")
    assert "left out: tools/inner/: is a repository of its own" in work.run("diff", IDENTITY).err
    assert work.run("pull", IDENTITY, "--path", "tools/inner", "--branch", "inner").code == 0
    assert work.branch("bottle/inner") == git(inner, "rev-parse", "HEAD")
    for path in ("nowhere", "../../..", "kept.txt", "/etc"):
        refused = work.run("diff", IDENTITY, "--path", path)
        assert (refused.code, "is no folder that can be read" in refused.err) == (2, True), refused


def test_the_difference_is_shown_with_uncommitted_work_and_as_a_list(work: KeptWork) -> None:
    work.commit(".github/workflows/ci.yml", "on: push\n")
    (work.workspace / "kept.txt").write_text("first\n")
    (work.workspace / "blob.bin").write_bytes(bytes(range(256)))
    shown = work.run("diff", IDENTITY)
    assert shown.code == 0
    assert "\n-second\n" in shown.out
    assert "Binary files /dev/null and b/blob.bin differ" in shown.out
    assert f"compared with {work.first[:12]}, the last commit that you have too" in shown.err
    listed = json.loads(work.run("diff", IDENTITY, "--json").out)
    files = {one["path"]: one for one in listed["files"]}
    assert files["kept.txt"] == {
        "path": "kept.txt", "status": "modified", "added": 0, "removed": 1, "mode": "100644", "runs": False,
    }  # fmt: skip
    assert files[".github/workflows/ci.yml"]["runs"]
    assert files["blob.bin"]["added"] is None
    assert listed["uncommitted"] == 2
    only = json.loads(work.run("diff", IDENTITY, "--json", "--committed").out)
    assert [one["path"] for one in only["files"]] == [".github/workflows/ci.yml"]


@pytest.mark.parametrize("no_colour", [False, True])
def test_on_a_terminal_the_difference_is_paged_and_coloured(
    work: KeptWork, tmp_path: Path, *, no_colour: bool
) -> None:
    work.commit("new.txt", "new\x1b]0;owned\x07 line\n")
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\necho "paged by us"\nexec cat\n')
    pager.chmod(0o755)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(work.home),
        "BOT_BOTTLE_HOME": str(work.home),
        "PYTHONPATH": str(REPO),
        "TERM": "xterm",
        "PAGER": str(pager),
        "LANG": "C.UTF-8",
    } | ({"NO_COLOR": "1"} if no_colour else {})
    argv = [sys.executable, "-m", "bot_bottle", "diff", IDENTITY]
    with OwnTerminal(argv, env, work.project) as terminal:
        terminal.wait_for("paged by us")
        line = r"+new\x1b]0;owned\x07 line"
        before = terminal.wait_for(line)
        assert before.endswith("\n" if no_colour else "\x1b[32m"), before
        assert "\x07" not in before
        assert terminal.exit_code() == 0


def test_a_folder_without_git_is_compared_file_by_file(work: KeptWork) -> None:
    for folder in (work.project, work.workspace):
        shutil.rmtree(folder / ".git")
    (work.workspace / "kept.txt").write_text("first\nthird\n")
    (work.workspace / "new.txt").write_text("new\n")
    listed = json.loads(work.run("diff", IDENTITY, "--json").out)
    assert [(one["path"], one["status"]) for one in listed["files"]] == [
        ("kept.txt", "modified"),
        ("new.txt", "added"),
    ]
    refused = work.run("pull", IDENTITY)
    assert (refused.code, "is not the top folder of a git repository" in refused.err) == (2, True)


def test_submodules_stay_what_they_are(work: KeptWork) -> None:
    git(
        work.workspace, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(work.project), "mod"
    )
    git(work.workspace, "commit", "-q", "-m", "submodule")
    (work.workspace / "mod" / "kept.txt").write_text("changed inside\n")
    (work.workspace / "kept.txt").write_text("changed outside\n")
    done = work.run("pull", IDENTITY, "--uncommitted")
    assert done.code == 0, done.err
    assert "look closely: .gitmodules is run or followed" in done.out
    assert git(work.project, "ls-tree", work.branch(), "mod").startswith("160000 commit ")
    changed = git(work.project, "diff", "--name-only", f"{work.branch()}^", work.branch())
    assert changed == "kept.txt"


def test_what_changed_in_a_submodule_is_told_and_can_be_brought(work: KeptWork) -> None:
    """A start copies a submodule's files without its history."""
    inner = work.home / "inner"
    git(work.home, "clone", "-q", str(work.project), str(inner))
    git(work.project, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "lib/it's")
    git(work.project, "commit", "-q", "-m", "submodule")
    git(work.workspace, "pull", "-q", str(work.project), "main")
    own, place = work.project / "lib" / "it's", work.workspace / "lib" / "it's"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("kept.txt", ".gitignore"):
        (place / name).write_text((own / name).read_text())
    (place / "x.log").write_text("ignored")
    assert json.loads(work.run("diff", IDENTITY, "--json").out)["submodules"] == []
    (place / "kept.txt").write_text("changed inside\n")
    (place / "new.txt").write_text("new\n")
    told = json.loads(work.run("pull", IDENTITY, "--json").out)
    assert told["submodules"] == [{"path": "lib/it's", "changed": 2}]
    words = "lib/it's/: a submodule, 2 files are not as in yours; see: bot-bottle diff"
    for command in ("diff", "pull"):
        said = work.run(command, IDENTITY).err
        assert words in said, said
    line = said.split("bring: bot-bottle ")[1].splitlines()[0]
    done = work.run(*shlex.split(line))
    assert done.code == 0, done.err
    tip = git(own, "rev-parse", f"refs/heads/bottle/{IDENTITY}")
    assert git(own, "rev-parse", f"{tip}^") == git(own, "rev-parse", "HEAD")
    assert git(own, "diff", "--name-only", f"{tip}^", tip).splitlines() == ["kept.txt", "new.txt"]
    shutil.rmtree(place)
    assert json.loads(work.run("diff", IDENTITY, "--json").out)["submodules"][0]["changed"] == 2


def test_a_shallow_repository_takes_what_was_made_on_it(work: KeptWork, tmp_path: Path) -> None:
    git(work.project, "commit", "-q", "--allow-empty", "-m", "two")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{work.project}", str(shallow))
    shutil.rmtree(work.workspace)
    shutil.copytree(shallow, work.workspace)
    tip = work.commit("a.txt", "a\n")
    done = work.run("pull", IDENTITY, "--into", str(shallow))
    assert done.code == 0, done.err
    assert git(shallow, "rev-parse", f"bottle/{IDENTITY}") == tip
    assert git(shallow, "fsck", "--strict") == ""


def test_an_identity_that_is_none_is_a_sentence(work: KeptWork) -> None:
    for command in ("diff", "pull"):
        done = work.run(command, "worker-zzzzz")
        assert done.code == 2
        said = f"there is no identity 'worker-zzzzz'; did you mean {IDENTITY}? those that exist: {IDENTITY}"
        assert said in done.err


def test_a_checkout_of_another_worktree_is_the_operators_repository_too(
    work: KeptWork, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    git(work.project, "worktree", "add", "-q", str(other))
    tip = work.commit("a.txt", "a\n")
    assert work.run("pull", IDENTITY, "--into", str(other)).code == 0
    assert work.branch() == tip
