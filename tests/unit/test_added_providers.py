"""Providers that the operator adds: as data, with every mistake told, from the operator's own hand only."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.agent_provider import added
from bot_bottle.agent_provider.dockerfiles import provider_dockerfile
from bot_bottle.agent_provider.guide import POINTER
from bot_bottle.agent_provider.registry import check_provider_keys, provider_named, skills_folder
from bot_bottle.cli import main
from bot_bottle.errors import ManifestError, UsageError
from bot_bottle.manifest.model import ManifestAgentProvider
from tests.support.cli_home import declare, scripted_home
from tests.support.scripted_backend import ScriptedBackend

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.agent_provider.plan import AgentProvisionPlan

_GOOD = """\
argv: [mine, --tty]
headless: [mine, run]
resume: [--continue]
prompt: stdin
system_prompt: .mine/AGENTS.md
skills: .mine/skills
env: {MINE_KEY: mine-placeholder, QUIET: "1"}
files: [{path: .mine/settings.json, source: settings.json}]
routes:
  - host: api.example.com
    auth: {scheme: header, name: x-mine, token_ref: MINE_KEY, placeholder: mine-placeholder}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BOT_BOTTLE_DRY_RUN", raising=False)
    return scripted_home(tmp_path, monkeypatch)


def add(home: Path, text: str = _GOOD, name: str = "mine") -> Path:
    folder = home / "providers" / name
    folder.mkdir(parents=True, mode=0o755)
    for path, content in ((folder / "provider.yaml", text), (folder / "settings.json", "{}\n")):
        path.write_text(content)
        path.chmod(0o644)
    return folder


def made(
    *, headless: bool = True, prompt: str = "task", resume: bool = False, name: str = "mine"
) -> AgentProvisionPlan:
    from bot_bottle.agent_provider.plan import ProvisionRequest  # noqa: PLC0415

    request = ProvisionRequest(
        provider=ManifestAgentProvider(template=name),
        agent_prompt="Be brief.",
        headless=headless,
        prompt=prompt,
        resume=resume,
    )
    return provider_named(name).provision(request)


def test_a_folder_makes_a_provider(home: Path) -> None:
    add(home)
    plan = made()
    files = {file.path: file.content for file in plan.files}
    assert plan.program == "mine"
    assert files[f"{AGENT_HOME}/.mine/AGENTS.md"] == f"Be brief.\n\n{POINTER}\n".encode()
    assert files[f"{AGENT_HOME}/.mine/settings.json"] == b"{}\n"
    assert plan.guest_env == {"MINE_KEY": "mine-placeholder", "QUIET": "1"}
    assert plan.hidden_env_names == frozenset({"MINE_KEY"})
    (route,) = plan.egress_routes
    assert (route.host, route.origin) == ("api.example.com", "agent_provider.mine")
    assert route.auth is not None
    assert (route.auth.name, route.auth.token_ref) == ("x-mine", "MINE_KEY")
    assert skills_folder("mine") == ".mine/skills"
    assert made(headless=False).argv == ("mine", "--tty")
    resumed = made(headless=False, resume=True)
    assert resumed.argv == ("mine", "--tty", "--continue")
    assert f"{AGENT_HOME}/.mine/settings.json" not in {file.path for file in resumed.files}


@pytest.mark.parametrize(
    ("prompt", "headless", "seen"),
    [
        ("stdin", "[mine, run]", 'run|in:say "$HOME" `id`'),
        ("argument", "[mine, run]", 'run say "$HOME" `id`|in:'),
        ("file", '[mine, run, "{prompt_file}"]', "run FILE|in:"),
    ],
)
def test_a_task_reaches_the_program_as_it_is(
    home: Path, tmp_path: Path, prompt: str, headless: str, seen: str
) -> None:
    add(home, _GOOD.replace("prompt: stdin", f"prompt: {prompt}").replace("[mine, run]", headless))
    plan = made(prompt='say "$HOME" `id`')
    assert not any("say" in element for element in plan.argv)
    program = tmp_path / "bin" / "mine"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf %s "$*"; printf "|in:"; cat\n')
    program.chmod(0o755)
    task = tmp_path / ".bot-bottle" / "prompt.md"
    task.parent.mkdir()
    task.write_bytes(next(file.content for file in plan.files if file.path.endswith("/prompt.md")))
    argv = [element.replace(AGENT_HOME, str(tmp_path)) for element in plan.argv]
    run = subprocess.run(
        argv, env={"PATH": f"{program.parent}:/usr/bin:/bin"}, capture_output=True, check=True, input=b""
    )
    assert run.stdout.decode().strip().replace(str(task), "FILE") == seen


def test_a_run_without_a_task_and_one_too_long_for_an_argument_are_refused(home: Path) -> None:
    add(home, _GOOD.replace("prompt: stdin", "prompt: argument"))
    with pytest.raises(UsageError, match="--prompt TEXT"):
        made(prompt=" ")
    with pytest.raises(UsageError, match="longer than 128 KiB"):
        made(prompt="x" * (1 << 17))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("system_prompt: .mine/AGENTS.md", "", "system_prompt: is missing"),
        (
            "system_prompt: .mine/AGENTS.md",
            "system_prompt: /etc/x",
            "provider.yaml:5:16: system_prompt: must",
        ),
        ("path: .mine/settings.json", "path: ../x", "files[0].path: must be a path below the agent's home"),
        ("source: settings.json", "source: ../../secret", "files[0].source: must be the name of a file"),
        ("source: settings.json", "source: missing.json", "missing.json cannot be read"),
        ("prompt: stdin", "prompt: letter", "prompt: "),
        ("prompt: stdin", "prompt: file", "headless: names no {prompt_file}"),
        ("[mine, run]", "[mine, '{prompt_file}']", "headless: names {prompt_file}, which goes with"),
        ("host: api.example.com", "host: '*.example.com'", "a credential goes to one host only"),
        ("argv:", "argvv:", "did you mean argv?"),
    ],
)
def test_every_mistake_is_told_with_its_place(home: Path, old: str, new: str, said: str) -> None:
    add(home, _GOOD.replace(old, new))
    with pytest.raises(ManifestError) as caught:
        provider_named("mine")
    assert said in str(caught.value)
    ((key, sentence),) = check_provider_keys("mine", ())
    assert (key, sentence.startswith("cannot be used: ")) == ("template", True)


def test_what_others_could_have_written_is_no_provider(home: Path, tmp_path: Path) -> None:
    folder = add(home)
    (folder / "settings.json").chmod(0o666)
    with pytest.raises(ManifestError, match=r"settings\.json"):
        provider_named("mine")
    (folder / "settings.json").chmod(0o644)
    folder.chmod(0o777)
    with pytest.raises(ManifestError, match="mine"):
        provider_named("mine")
    folder.chmod(0o755)
    (tmp_path / "elsewhere").write_text("a secret of the operator's")
    (folder / "settings.json").unlink()
    (folder / "settings.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="is a link out of"):
        provider_named("mine")


def test_a_repository_brings_no_provider_and_none_replaces_one_of_ours(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path / ".bot-bottle")
    declare(home, "agent_provider: {template: mine}\n")
    assert main(["start", "a", "--yes", "--headless", "--prompt", "x"]) == 2
    assert "unknown template" in capsys.readouterr().err
    add(home, name="command")
    assert frozenset({"argv"}) == provider_named("command").MANIFEST_KEYS
    assert ScriptedBackend.launched == []


def test_a_start_uses_it_and_an_unknown_one_names_the_nearest(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add(home)
    declare(home, "agent_provider: {template: mine}\n")
    monkeypatch.setenv("MINE_KEY", "the-real-" + "key-of-mine")
    assert main(["start", "a", "--yes", "--headless", "--prompt", "x"]) == 0
    (launched,) = ScriptedBackend.launched
    assert launched.secrets["MINE_KEY"].reveal() == "the-real-key-of-mine"
    err = capsys.readouterr().err
    assert "api.example.com [auth:header x-mine MINE_KEY]" in err
    declare(home, "agent_provider: {template: min}\n")
    assert main(["start", "a", "--yes"]) == 2
    assert "did you mean mine?" in capsys.readouterr().err
    declare(home, "agent_provider: {template: mine, argv: [x]}\n")
    assert main(["check"]) == 2
    assert "argv: is for template command only, and this is mine" in capsys.readouterr().out


def test_its_image_is_its_own_dockerfile_or_the_plain_one(home: Path) -> None:
    folder = add(home)
    assert provider_dockerfile("mine") == (provider_dockerfile("command")[0], "the Dockerfile of command")
    (folder / "Dockerfile").write_text("FROM mine\n")
    (folder / "Dockerfile").chmod(0o644)
    assert provider_dockerfile("mine") == ("FROM mine\n", "the Dockerfile of the provider mine")


def test_a_python_package_names_a_provider(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "theirs-1.dist-info").mkdir(parents=True)
    (site / "theirs-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (site / "theirs-1.dist-info" / "entry_points.txt").write_text(
        f"[{added.ENTRY_POINTS}]\ntheirs = theirs_provider\nbroken = theirs_missing\nodd = theirs_odd\n"
    )
    (site / "theirs_provider.py").write_text(
        "from bot_bottle.agent_provider.command import *\n"
        "from bot_bottle.agent_provider.command import provision\nTEMPLATE = 'theirs'\n"
    )
    (site / "theirs_odd.py").write_text("TEMPLATE = 'odd'\n")
    monkeypatch.syspath_prepend(str(site))
    assert provider_named("theirs").REQUIRED_KEYS
    with pytest.raises(ManifestError, match="cannot be loaded"):
        provider_named("broken")
    with pytest.raises(ManifestError, match="lacks MANIFEST_KEYS"):
        provider_named("odd")
