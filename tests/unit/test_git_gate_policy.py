"""What may be pushed where: a truth table, and the patterns it is written in."""

from __future__ import annotations

import json

import pytest

from bot_bottle.git_gate.commands import Command
from bot_bottle.git_gate.globs import matches
from bot_bottle.git_gate.policy import KEYS, Opening, PushPolicy, Rules
from bot_bottle.git_gate.protected import PROTECTED_PATHS, is_protected
from bot_bottle.git_gate.remote import GateConfig, GateRemote, SshKey
from bot_bottle.secret import Secret

A, B, ZERO = "a" * 40, "b" * 40, "0" * 40
CREATE, UPDATE, DELETE = (ZERO, A), (A, B), (A, ZERO)


def rules(**policy: object) -> Rules:
    return Rules(PushPolicy(**policy), place="git.remotes.h", defaults=["main"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "ref", "move", "reason", "key"),
    [
        ({}, "refs/heads/bottle/x", CREATE, "", ""),
        ({}, "refs/heads/bottle/a/b", UPDATE, "", ""),
        ({}, "refs/heads/bottle", CREATE, "branch_denied", "Branches"),
        ({}, "refs/heads/feature", CREATE, "branch_denied", "Branches"),
        ({}, "refs/heads/main", UPDATE, "default_branch_denied", "AllowDefaultBranch"),
        ({}, "refs/heads/MAIN", CREATE, "default_branch_denied", "AllowDefaultBranch"),
        ({"branches": ("**",)}, "refs/heads/main", UPDATE, "default_branch_denied", "AllowDefaultBranch"),
        ({"branches": ("**",)}, "refs/heads/feature", UPDATE, "", ""),
        ({"branches": ()}, "refs/heads/bottle/x", CREATE, "branch_denied", "Branches"),
        ({"default_branch": True}, "refs/heads/main", UPDATE, "", ""),
        ({"default_branch": True}, "refs/heads/main", DELETE, "delete_denied", "AllowDelete"),
        ({}, "refs/heads/bottle/x", DELETE, "delete_denied", "AllowDelete"),
        ({"delete": True}, "refs/heads/bottle/x", DELETE, "", ""),
        ({"delete": True}, "refs/heads/x", DELETE, "branch_denied", "Branches"),
        ({}, "refs/tags/v1", CREATE, "tag_denied", "AllowTags"),
        ({"tags": True}, "refs/tags/v1", CREATE, "", ""),
        ({"tags": True}, "refs/tags/v1", UPDATE, "force_denied", "AllowForce"),
        ({"tags": True, "force": True}, "refs/tags/v1", UPDATE, "", ""),
        ({"tags": True}, "refs/tags/v1", DELETE, "delete_denied", "AllowDelete"),
    ],
)
def test_refs(policy: dict[str, object], ref: str, move: tuple[str, str], reason: str, key: str) -> None:
    denied = rules(**policy).judge(Command(ref=ref, old=move[0], new=move[1]))
    assert (denied.reason if denied else "") == reason
    if denied:
        assert denied.rule == f"git.remotes.h.{key}"
        assert denied.rule in denied.next_step
        assert ref in denied.message


@pytest.mark.parametrize(
    "ref", ["refs/notes/x", "refs/replace/x", "refs/pull/1/head", "refs/bot-bottle/backup/x", "refs/for/main"]
)
def test_no_policy_opens_other_refs(ref: str) -> None:
    everything = rules(
        branches=("**",), force=True, delete=True, tags=True, default_branch=True, paths=("**",)
    )
    denied = everything.judge(Command(ref=ref, old=ZERO, new=A))
    assert denied
    assert denied.reason == "ref_denied"


def test_a_rewind_needs_a_word() -> None:
    move = Command(ref="refs/heads/bottle/x", old=A, new=B)
    denied = rules().judge_rewind(move)
    assert denied
    assert denied.rule == "git.remotes.h.AllowForce"
    assert rules(force=True).judge_rewind(move) is None


@pytest.mark.parametrize(
    "path",
    [
        ".github/workflows/ci.yml",
        ".GitHub/Workflows/x",
        ".gitmodules",
        ".gitlab-ci.yml",
        "Jenkinsfile",
        "sub/Jenkinsfile",
        "deep/er/action.yml",
        ".circleci/config.yml",
    ],
)
def test_protected_paths_need_a_word(path: str) -> None:
    denied = rules().judge_paths([(A, "src/a.py"), (B, path)])
    assert denied
    assert denied.rule == "git.remotes.h.AllowPaths"
    assert path in denied.message
    assert rules(paths=(path,)).judge_paths([(B, path)]) is None
    assert rules(paths=("**",)).judge_paths([(B, path)]) is None


@pytest.mark.parametrize(
    "path",
    [
        "src/.github/workflows/x",
        "github/workflows/x",
        ".gitmodules.txt",
        "README.md",
        ".github/x",
        "ci/x.yml",
        "Makefile",
        "package.json",
        ".github/ISSUE_TEMPLATE/x.md",
        "drone.yml",
        "a/.travis.yml",
        "\udcff",
    ],
)
def test_other_paths_do_not(path: str) -> None:
    assert not is_protected(path)


@pytest.mark.parametrize(
    "path",
    [
        ".drone.yaml", ".drone.star", ".drone.jsonnet", "circle.yml", ".vsts-ci.yml",
        "azure-pipelines-pr.yml",
        "bamboo-specs/bamboo.yml", ".gitlab/agents/a/config.yaml", ".codecatalyst/workflows/w.yaml",
        ".woodpecker.yaml", ".cirrus.star", ".teamcity/settings.kts", ".semaphore/semaphore.yml",
        "wercker.yml", "deploy/Jenkinsfile.release", "a/b.jenkinsfile", "sub/x.gitlab-ci.yml",
        "cloudbuild.json", "buildspec.yaml", "buildkite/pipeline.yml", "buildkite.json", "a/netlify.toml",
        "vercel.json", "ios/ci_scripts/ci_post_clone.sh", "amplify.yml", ".zuul.d/jobs.yaml",
    ],
)  # fmt: skip
def test_what_further_forges_and_cis_run_is_protected(path: str) -> None:
    assert is_protected(path)
    assert is_protected(path.upper())


@pytest.mark.parametrize(
    "path",
    [".github", ".github/workflows", ".github/actions", ".circleci", ".buildkite", ".gitlab", ".gitlab/ci",
     ".gitea", ".codecatalyst", "ios/ci_scripts", "ci_scripts"],
)  # fmt: skip
def test_what_stands_in_the_place_of_a_protected_folder_is_protected(path: str) -> None:
    assert is_protected(path)
    assert rules().judge_paths([(A, path)])
    assert not is_protected(f"src/{path.removeprefix('ios/').replace('ci_', 'x_')}")


def test_every_folder_of_a_protected_path_is_covered() -> None:
    for pattern in PROTECTED_PATHS:
        parts = pattern.replace("**/", "").replace("*", "x").split("/")
        assert all(is_protected("/".join(parts[:count])) for count in range(1, len(parts) + 1)), pattern


@pytest.mark.parametrize(
    "path",
    [
        ".git\u200chub/workflows/x.yml", ".github\ufeff", ".GITHUB/workFLOWS/x", ".githu\u200eb/actions",
        ".github./workflows/x", ".github /workflows", "\u202a.circleci",
        ".github::$INDEX_ALLOCATION/workflows",
        ".github\\workflows\\x.yml", ".build\u212aite",
    ],
)  # fmt: skip
def test_a_name_that_some_file_system_takes_for_a_protected_one_is_protected(path: str) -> None:
    assert is_protected(path)


def test_bounds() -> None:
    small = rules(max_bytes=10, max_objects=2)
    assert small.judge_size(bytes_seen=10, objects=2) is None
    for denied, key in (
        (small.judge_size(bytes_seen=11), "MaxPushBytes"),
        (small.judge_size(objects=3), "MaxPushObjects"),
    ):
        assert denied
        assert denied.rule.endswith(key)


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("bottle/**", "bottle/a/b", True),
        ("bottle/**", "bottle", False),
        ("bottle/*", "bottle/a/b", False),
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("**/x", "a/bx", False),
        ("a.c", "abc", False),
        ("**", "any/thing", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a*c", "abbc", True),
        ("a*c", "ab/c", False),
        ("x", "x\n", False),
    ],
)
def test_patterns(pattern: str, name: str, covered: bool) -> None:
    assert matches(name, [pattern]) is covered


def test_every_rule_has_a_key() -> None:
    assert set(KEYS) == set(PushPolicy().to_wire())


def test_a_config_crosses_the_pipe_whole_and_hides_its_secrets() -> None:
    remote = GateRemote(
        host="h",
        name="p",
        scheme="ssh",
        user="git",
        upstream_host="h",
        port=2222,
        path="/p.git",
        known_host_key="ssh-ed25519 AAAA",
        key=SshKey(public="ssh-ed25519 AAAA", private=Secret("key-material")),
        token=Secret("token-material"),
        policy=PushPolicy(branches=("a/**",), force=True, max_bytes=7),
    )
    config = GateConfig(remotes=(remote,), folder="/somewhere")
    again = GateConfig.from_wire(json.loads(json.dumps(config.to_wire())))
    assert again == config
    assert "material" not in repr(config)
    assert set(config.secrets()) == {"git.remotes.h.TokenRef", "git.remotes.h.IdentityFile"}
    assert remote.upstream == "ssh://git@h:2222/p.git"


def command(ref: str, old: str, new: str) -> Command:
    return Command(ref=ref, old=old, new=new)


def opened(*openings: Opening) -> Rules:
    return Rules(PushPolicy(), place="git.remotes.h", defaults=["main"], openings=openings)


def test_what_a_human_opened_holds_beside_the_policy_and_is_named_where_it_is_counted() -> None:
    once = Opening(name="once", branches=("fix-*",), counted=True)
    always = Opening(name="always", branches=("fix-2",))
    tried = opened(once, always)
    assert tried.judge(command("refs/heads/bottle/x", *CREATE)) is None
    assert tried.judge(command("refs/heads/fix-2", *CREATE)) is None
    assert tried.needed == set(), "what is not counted is leaned on first"
    assert tried.judge(command("refs/heads/fix-1", *CREATE)) is None
    assert tried.needed == {"once"}
    for ref in ("refs/heads/other", "refs/heads/main", "refs/tags/fix-1", "refs/notes/fix-1"):
        assert tried.judge(command(ref, *CREATE)) is not None, ref
    assert tried.judge_rewind(command("refs/heads/fix-1", *UPDATE)) is not None


def test_paths_opened_with_branches_are_open_in_pushes_to_these_alone() -> None:
    path = ".github/workflows/ci.yml"
    tied = Opening(name="tied", branches=("fix-1",), paths=(".github/**",), counted=True)
    for refs, open_there in (
        (("refs/heads/fix-1",), True),
        (("refs/heads/bottle/x",), False),
        (("refs/heads/fix-1", "refs/heads/bottle/x"), False),
    ):
        tried = opened(tied)
        assert [tried.judge(command(ref, *CREATE)) for ref in refs] == [None] * len(refs)
        assert (tried.judge_paths([(A, path)]) is None) is open_there
    free = opened(Opening(name="free", paths=(".github/**",), counted=True))
    assert free.judge(command("refs/heads/bottle/x", *CREATE)) is None
    assert free.judge_paths([(A, "src/a.py")]) is None
    assert free.needed == set(), "nothing of it was needed yet"
    assert free.judge_paths([(A, path)]) is None
    assert free.needed == {"free"}
