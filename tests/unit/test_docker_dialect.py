"""What Podman is asked in other words than Docker."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

pytest.importorskip("docker", reason="the Docker SDK is not installed")

from bot_bottle.backend.docker import dialect
from bot_bottle.backend.docker.endpoint import Endpoint
from bot_bottle.backend.docker.facts import EngineFacts
from bot_bottle.errors import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.backend.docker.engine import Engine

DOCKER = EngineFacts(
    product="Docker", version="20.10", api_version="1.41", os_type="linux", architecture="x86_64"
)
PODMAN = replace(DOCKER, product=dialect.PODMAN)


def engine(facts: EngineFacts, url: str = "unix:///x.sock") -> Engine:
    return cast("Engine", SimpleNamespace(facts=facts, endpoint=Endpoint(url=url, chosen_by="a test")))


def test_docker_takes_the_filter_itself_and_podman_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "bb"))
    text = dialect.seccomp_option(engine(DOCKER, "ssh://there"))
    assert json.loads(text)["defaultAction"] == "SCMP_ACT_ALLOW"
    place = dialect.seccomp_option(engine(PODMAN))
    (path,) = (tmp_path / "bb" / "cache").iterdir()
    assert place == str(path)
    path.write_text("{}")
    assert dialect.seccomp_option(engine(PODMAN)) == place
    assert path.read_text() == text


@pytest.mark.parametrize("url", ["ssh://me@there", "tcp://127.0.0.1:1"])
def test_a_podman_elsewhere_is_refused_and_a_docker_is_not(url: str) -> None:
    with pytest.raises(
        UnavailableError, match="cannot be given the bottle's system-call filter; use a Podman"
    ):
        dialect.require_filter(engine(PODMAN, url))
    dialect.require_filter(engine(DOCKER, url))


def test_a_tmpfs_is_the_agents_where_it_can_be() -> None:
    def made(facts: EngineFacts, owner: int | None) -> str:
        return dialect.tmpfs("rw,nosuid", 1024, facts, owner=owner)

    assert made(DOCKER, 1000) == "rw,nosuid,mode=755,uid=1000,gid=1000,size=1024"
    assert made(DOCKER, 0) == "rw,nosuid,mode=755,size=1024"
    assert made(DOCKER, None) == "rw,nosuid,mode=1777,size=1024"
    assert made(PODMAN, 1000) == "rw,nosuid,mode=1777,size=1024,notmpcopyup"
    assert made(PODMAN, 0) == "rw,nosuid,mode=755,size=1024,notmpcopyup"
    assert dialect.root_script(DOCKER) == ""
    assert "chmod 1777 /run" in dialect.root_script(PODMAN)
