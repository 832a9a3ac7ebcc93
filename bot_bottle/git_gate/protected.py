"""The paths that a forge or a CI runs or follows by itself, and the spellings and links that lead to them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from bot_bottle.git_gate.globs import union

if TYPE_CHECKING:
    import re

#: What is read out of the branch that was pushed, and runs code with the upstream's own secrets (F3). What a
#: CI's own file calls (a Makefile, the scripts of a package) is the repository's code and not listed; nor is
#: what is read from the default branch alone and runs nothing (CODEOWNERS, templates of issues).
PROTECTED_PATHS = (
    ".gitmodules",
    # docs.github.com/actions, docs.gitea.com/usage/actions, forgejo.org/docs/latest/user/actions
    ".github/workflows/**", ".github/actions/**", ".gitea/workflows/**", ".forgejo/workflows/**",
    "**/action.yml", "**/action.yaml",
    # docs.gitlab.com/ci/yaml (include:local takes any *.gitlab-ci.yml), docs.gitlab.com/user/clusters/agent
    "**/*.gitlab-ci.yml", "**/*.gitlab-ci.yaml", ".gitlab/ci/**", ".gitlab/agents/**",
    # circleci.com/docs/configuration-reference; docs.travis-ci.com
    ".circleci/**", "circle.yml", ".travis.yml",
    # jenkins.io/doc/book/pipeline/jenkinsfile: its name and folder are the job's to choose
    "**/Jenkinsfile*", "**/*.Jenkinsfile",
    # learn.microsoft.com/azure/devops/pipelines
    "azure-pipelines*.yml", "azure-pipelines*.yaml", ".azure-pipelines/**", ".vsts-ci.yml",
    # support.atlassian.com/bitbucket-cloud/docs/bitbucket-pipelines-configuration-reference,
    # confluence.atlassian.com/bamboo/bamboo-specs
    "bitbucket-pipelines.yml", "bamboo-specs/**",
    # docs.drone.io/pipeline, woodpecker-ci.org/docs/usage/workflows
    ".drone.*", ".woodpecker.*", ".woodpecker/**",
    # buildkite.com/docs/agent/cli/reference/pipeline: where "pipeline upload" looks
    ".buildkite/**", "buildkite/**", "buildkite.yml", "buildkite.yaml", "buildkite.json",
    # cirrus-ci.org/guide/writing-tasks, appveyor.com/docs/appveyor-yml, devcenter.wercker.com
    ".cirrus.*", "appveyor.yml", ".appveyor.yml", "wercker.yml",
    # jetbrains.com/help/teamcity/storing-project-settings-in-version-control.html, docs.semaphoreci.com
    ".teamcity/**", ".semaphore/**",
    # docs.aws.amazon.com: codebuild build-spec-ref, codecatalyst workflows, amplify yml-specification-syntax
    "buildspec*.yml", "buildspec*.yaml", ".codecatalyst/workflows/**", "amplify.yml",
    # cloud.google.com/build/docs/build-config-file-schema
    "cloudbuild*.yaml", "cloudbuild*.yml", "cloudbuild*.json",
    # man.sr.ht/builds.sr.ht, pipelinesascode.com/docs (Tekton), codefresh.io/docs
    ".builds/**", ".build.yml", ".tekton/**", "codefresh.yml", ".codefresh/**",
    # docs.gocd.org (pipelines as code), zuul-ci.org/docs (project configuration), docs.onedev.io
    "**/*.gocd.yaml", "**/*.gocd.yml", "**/*.gocd.json",
    ".zuul.yaml", "zuul.yaml", ".zuul.d/**", "zuul.d/**", ".onedev-buildspec.yml",
    # developer.apple.com/documentation/xcode/writing-custom-build-scripts, docs.codemagic.io, bitrise.io
    "**/ci_scripts/**", "codemagic.yaml", "bitrise.yml", ".bitrise.yml",
    # Hosts that build each branch: docs.netlify.com/configure-builds/file-based-configuration,
    # vercel.com/docs/project-configuration (buildCommand), docs.platform.sh
    "**/netlify.toml", "**/vercel.json", ".platform.app.yaml", ".platform/**", ".upsun/**",
)  # fmt: skip

#: What HFS+ leaves out of a name when it compares, as git knows it (utf8.c, ``next_hfs_char``).
_IGNORED = dict.fromkeys(
    [*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF], None
)


def is_protected(path: str) -> bool:
    """Tell the path of a file, link or submodule that needs the operator's word.

    So does one that stands where a protected path's folder would: a link there leads to files of any name,
    and a file or submodule there takes those away. Names are compared as file systems without case do, and
    as HFS+ and NTFS do where they leave characters out.
    """
    return _protected().fullmatch(_plain(path)) is not None


def _plain(path: str) -> str:
    """Give what a path is to the least exact of file systems, without case.

    NTFS has no ends of dots and spaces in a name, and takes what follows a colon for a stream of the file.
    """
    parts = path.translate(_IGNORED).replace("\\", "/").casefold().split("/")
    return "/".join(part.partition(":")[0].rstrip(". ") for part in parts)


@functools.cache
def _protected() -> re.Pattern[str]:
    """Give what covers the protected paths and each folder of theirs that has a name, without case."""
    found: dict[str, None] = {}
    for pattern in PROTECTED_PATHS:
        parts = pattern.casefold().split("/")
        for count in range(1, len(parts) + 1):
            if parts[:count] != ["**"]:
                found["/".join(parts[:count])] = None
    return union(found)
