"""What the engine says of itself, whose things are on it, what a build is told and says meanwhile."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("docker", reason="the Docker SDK is not installed")

from bot_bottle import paths
from bot_bottle.backend.docker import builds, labels
from bot_bottle.backend.docker.facts import read_facts
from bot_bottle.backend.docker.progress import Progress
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bb"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(folder))
    return folder


# -- keys, labels, proxies, facts ------------------------------------------------------------------------


def test_a_key_stands_for_its_parts_and_nothing_else() -> None:
    assert builds.content_key("a", {"x": "1", "y": "2"}) == builds.content_key("a", {"y": "2", "x": "1"})
    assert builds.content_key("a", "b") != builds.content_key("ab")
    assert re.fullmatch(r"[0-9a-f]{40}", builds.content_key("a"))


def test_an_installation_keeps_its_id(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = labels.installation_id()
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert labels.installation_id() == first
    assert (home / "installation").stat().st_mode & 0o777 == 0o600
    assert labels.make_labels("agent", "a-12345") == {
        "bot-bottle.installation": first,
        "bot-bottle.role": "agent",
        "bot-bottle.identity": "a-12345",
    }
    assert labels.label_filter("home") == {
        "label": [f"bot-bottle.installation={first}", "bot-bottle.role=home"]
    }
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "other" / "one"))
    assert labels.installation_id() != first
    assert paths.home_dir().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("text", ["", "x" * 32, "0123\n"])
def test_a_spoilt_id_is_never_replaced_silently(home: Path, text: str) -> None:
    (home / "installation").write_text(text)
    with pytest.raises(UsageError, match="does not hold an installation's id"):
        labels.installation_id()
    assert (home / "installation").read_text() == text


def test_builds_get_the_clients_proxies_but_none_with_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert builds.proxy_args() == {}
    proxies = {
        "httpProxy": "http://proxy.example:3128",
        "httpsProxy": "http://me:secret@proxy.example:3128",
        "noProxy": "localhost",
    }
    (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": proxies}}))
    assert builds.proxy_args() == {
        "HTTP_PROXY": "http://proxy.example:3128",
        "http_proxy": "http://proxy.example:3128",
        "NO_PROXY": "localhost",
        "no_proxy": "localhost",
    }
    for secret in ("user:secret@proxy:3128", "http://token@proxy:3128", "//u:p@proxy"):
        (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": secret}}}))
        assert builds.proxy_args() == {}, secret
    (tmp_path / "config.json").write_text('{"proxies": 1}')
    assert builds.proxy_args() == {}


def test_what_an_engine_says_of_itself() -> None:
    version = {"Version": "20.10.24", "ApiVersion": "1.41", "Os": "linux", "Arch": "amd64"}
    info = {
        "OSType": "linux",
        "Architecture": "x86_64",
        "Runtimes": {"runsc": {}, "runc": {}},
        "DefaultRuntime": "runc",
        "SecurityOptions": ["name=seccomp,profile=default", "name=rootless", "name=userns"],
        "MemoryLimit": True,
        "CpuCfsQuota": True,
        "PidsLimit": False,
        "NCPU": 2,
        "MemTotal": 1024,
    }
    facts = read_facts(version, info)
    assert (facts.product, facts.version, facts.api_version) == ("Docker", "20.10.24", "1.41")
    assert [runtime.name for runtime in facts.runtimes] == ["runc", "runsc"]
    assert facts.security == {"seccomp", "rootless", "userns"}
    assert facts.rootless
    assert facts.remaps_users
    assert (facts.holds_memory, facts.holds_cpu, facts.holds_pids) == (True, True, False)
    podman = read_facts({**version, "Components": [{"Name": "Podman Engine"}]}, {})
    assert podman.product == "Podman"
    nothing = read_facts({}, {"Runtimes": None, "SecurityOptions": None, "NCPU": "2"})
    assert (nothing.os_type, nothing.runtimes, nothing.holds_memory, nothing.cpus) == ("", (), False, 0)


# -- progress --------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line_that_goes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    progress = Progress(stream)
    progress.step("building x")
    progress.note("Step 1/2 : FROM a")
    progress.detail("fetching \x1b[31mred\x1b[0m\n" + "y" * 100)
    progress.close()
    text = stream.getvalue()
    assert "\n" not in text
    assert text.endswith("\r\x1b[K")
    assert "\x1b[31m" not in text
    assert max(len(line) for line in text.split("\r\x1b[K")) <= 39


def test_progress_elsewhere_is_plain_lines_of_steps() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.step("building x")
    progress.note("Step 1/2 : " + "z" * 200)
    progress.detail("a detail\n\n  second\x07 ")
    assert stream.getvalue() == f"bot-bottle: building x\nbot-bottle: Step 1/2 : {'z' * 88}…\n"
    assert progress.show_tail() == "second?"
    assert stream.getvalue().splitlines()[-2:] == ["  | a detail", "  | second?"]


def test_a_silent_progress_still_shows_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(None)
    progress.step("building x")
    progress.detail("\n".join(str(number) for number in range(50)))
    assert capsys.readouterr().err == ""
    progress.show_tail()
    assert capsys.readouterr().err.splitlines() == [f"  | {number}" for number in range(30, 50)]
