"""Finding an agent's program and all it needs, on file trees as package managers make them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from bot_bottle.backend.bubblewrap import elf, node_packages, shims
from bot_bottle.backend.bubblewrap.layout import ProgramFiles
from bot_bottle.backend.bubblewrap.program import find_program
from bot_bottle.errors import UnavailableError, UsageError


class Host:
    """A home with programs in it."""

    def __init__(self, base: Path) -> None:
        self.home = base / "home" / "op"
        self.home.mkdir(parents=True)
        self.path: list[str] = []

    def file(self, name: str, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def link(self, name: str, target: str | Path) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
        return path

    def package(self, name: str, **manifest: object) -> Path:
        return self.file(f"{name}/package.json", json.dumps({"name": name, **manifest}), 0o644).parent

    def on_path(self, *folders: str) -> None:
        self.path += [str(self.home / folder) for folder in folders]

    def find(self, name: str) -> ProgramFiles:
        return find_program(name, os.pathsep.join([*self.path, "/usr/bin", "/bin"]), self.home)

    def shown(self, name: str) -> set[str]:
        """Give what is shown for a program, relative to the home."""
        found = self.find(name)
        assert all(source == dest for source, dest in found.binds)
        return {os.path.relpath(source, self.home) for source, _dest in found.binds}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_single_binary_behind_a_link_brings_only_itself(host: Host) -> None:
    host.file(".local/share/claude/versions/2.1.0", "\x00binary")
    host.file(".local/share/claude/settings.json", "{}", 0o644)
    host.link(".local/bin/claude", "../share/claude/versions/2.1.0")
    host.on_path(".local/bin")
    found = host.find("claude")
    assert host.shown("claude") == {".local/share/claude/versions/2.1.0"}
    assert found.links == ((str(host.home / ".local/bin/claude"), "../share/claude/versions/2.1.0"),)
    assert found.names == (("claude", str(host.home / ".local/bin/claude")),)


def test_every_link_on_the_way_is_made_again(host: Host) -> None:
    host.file("real/tool", "\x00binary")
    host.link("second", "real")
    host.link("first", host.home / "second")
    host.on_path("first")
    assert dict(host.find("tool").links) == {
        str(host.home / "first"): str(host.home / "second"),
        str(host.home / "second"): "real",
    }


def test_endless_links_are_refused(host: Host) -> None:
    host.link("a", "b")
    host.link("b", "a")
    with pytest.raises(UnavailableError):
        find_program(str(host.home / "a"), "/usr/bin", host.home)


def test_an_npm_program_brings_its_package_its_dependencies_and_its_node(host: Host) -> None:
    modules = ".nvm/versions/node/v22.1.0/lib/node_modules"
    host.package(f"{modules}/agent", dependencies={"near": "1"}, optionalDependencies={"@scope/native": "1"})
    host.file(f"{modules}/agent/cli.js", "#!/usr/bin/env node\n")
    host.package(f"{modules}/agent/node_modules/near", dependencies={"far": "1", "not-installed": "1"})
    host.package(f"{modules}/far", peerDependencies={"agent": "1"})
    host.package(f"{modules}/@scope/native")
    host.package(f"{modules}/unrelated")
    host.file(".nvm/versions/node/v22.1.0/bin/node", "\x00binary")
    host.link(".nvm/versions/node/v22.1.0/bin/agent", "../lib/node_modules/agent/cli.js")
    host.on_path(".nvm/versions/node/v22.1.0/bin")
    assert host.shown("agent") == {
        ".nvm/versions/node/v22.1.0/bin/node",
        f"{modules}/agent",
        f"{modules}/agent/cli.js",
        f"{modules}/agent/node_modules/near",
        f"{modules}/far",
        f"{modules}/@scope/native",
    }
    assert dict(host.find("agent").names).keys() == {"agent", "node"}


def test_a_pnpm_package_is_found_through_its_store(host: Host) -> None:
    store = ".local/share/pnpm/global/5/.pnpm"
    host.package(f"{store}/agent@1/node_modules/agent", dependencies={"dep": "1"})
    host.file(f"{store}/agent@1/node_modules/agent/cli.js", "#!/usr/bin/env node\n")
    host.package(f"{store}/dep@1/node_modules/dep")
    host.link(f"{store}/agent@1/node_modules/dep", "../../dep@1/node_modules/dep")
    host.link(".local/share/pnpm/global/5/node_modules/agent", "../.pnpm/agent@1/node_modules/agent")
    host.file(
        ".local/share/pnpm/agent",
        '#!/bin/sh\nbasedir=$(dirname "$0")\n'
        'exec node "$basedir/global/5/node_modules/agent/cli.js" --config ~/.npmrc "$@"\n',
    )
    host.file("bin/node", "\x00binary")
    host.file(".npmrc", "_authToken=secret", 0o600)
    host.on_path(".local/share/pnpm", "bin")
    shown = host.shown("agent")
    assert {f"{store}/agent@1/node_modules/agent", f"{store}/dep@1/node_modules/dep", "bin/node"} <= shown
    assert not [path for path in shown if "npmrc" in path]
    links = dict(host.find("agent").links)
    assert str(host.home / store / "agent@1/node_modules/dep") in links
    assert str(host.home / ".local/share/pnpm/global/5/node_modules/agent") in links


def test_a_wrapper_does_not_bring_the_settings_it_names(host: Host) -> None:
    host.file(".config/secret.toml", "token", 0o600)
    host.file("real", "\x00binary")
    host.file(
        "bin/agent", f'#!/bin/bash\nexec "{host.home}/real" --config "{host.home}/.config/secret.toml"\n'
    )
    host.on_path("bin")
    assert host.shown("agent") == {"bin/agent", "real"}


def test_the_old_local_claude_is_shown_without_its_private_folder(host: Host) -> None:
    host.package(".claude/local/node_modules/@anthropic-ai/claude-code")
    host.file(".claude/local/node_modules/@anthropic-ai/claude-code/cli.js", "#!/usr/bin/env node\n")
    host.link(".claude/local/node_modules/.bin/claude", "../@anthropic-ai/claude-code/cli.js")
    host.file(
        ".claude/local/claude",
        f'#!/bin/bash\nexec "{host.home}/.claude/local/node_modules/.bin/claude" "$@"\n',
    )
    host.file(".claude/.credentials.json", "secret", 0o600)
    host.file("bin/node", "\x00binary")
    host.on_path("bin", ".claude/local")
    assert host.shown("claude") == {
        ".claude/local/claude",
        ".claude/local/node_modules/@anthropic-ai/claude-code",
        ".claude/local/node_modules/@anthropic-ai/claude-code/cli.js",
        "bin/node",
    }


def test_a_virtual_environment_comes_with_what_it_was_made_from(host: Host) -> None:
    base = host.file(".pyenv/versions/3.12.4/bin/python3.12", "\x00binary").parent
    host.link(".pyenv/versions/3.12.4/bin/python3", "python3.12")
    host.link(".local/share/uv/tools/aider/bin/python", base / "python3")
    host.file(".local/share/uv/tools/aider/pyvenv.cfg", f"home = {base}\nversion = 3.12.4\n", 0o644)
    host.file(
        ".local/share/uv/tools/aider/bin/aider", f"#!{host.home}/.local/share/uv/tools/aider/bin/python\n"
    )
    host.link(".local/bin/aider", "../share/uv/tools/aider/bin/aider")
    host.on_path(".local/bin")
    assert host.shown("aider") >= {".local/share/uv/tools/aider", ".pyenv/versions/3.12.4"}
    assert str(base / "python3") in dict(host.find("aider").links)


def test_pips_long_first_line_is_understood(host: Host) -> None:
    host.file("venv/pyvenv.cfg", "home = /usr/bin\n", 0o644)
    host.link("venv/bin/python", "/usr/bin/env")
    host.file("venv/bin/agent", f"#!/bin/sh\n'''exec' \"{host.home}/venv/bin/python\" \"$0\" \"$@\"\n' '''\n")
    assert "venv" in {
        os.path.relpath(s, host.home) for s, _ in host.find(f"{host.home}/venv/bin/agent").binds
    }


def test_a_user_installed_script_finds_its_packages(host: Host) -> None:
    host.file(".local/lib/python3.11/site-packages/agent/__init__.py", "", 0o644)
    host.file(".local/bin/python3", "\x00binary")
    host.file(".local/bin/agent", "#!/usr/bin/env python3\n")
    host.on_path(".local/bin")
    found = host.find("agent")
    assert ".local/lib/python3.11/site-packages" in host.shown("agent")
    assert dict(found.env) == {"PYTHONUSERBASE": str(host.home / ".local")}


@pytest.mark.parametrize(
    ("chosen", "expected"), [("3.10.1", "3.10.1"), ("../../x", "3.12.2"), ("9.9", "3.12.2")]
)
def test_a_pyenv_shim_leads_to_the_chosen_or_newest_version(host: Host, chosen: str, expected: str) -> None:
    host.file(
        ".pyenv/shims/agent",
        '#!/usr/bin/env bash\nprogram="x"\nexec "/o/.pyenv/bin/pyenv" exec "$program" "$@"\n',
    )
    host.file(".pyenv/version", f"{chosen}\n", 0o644)
    for version in ("3.9.18", "3.10.1", "3.12.2"):
        host.file(f".pyenv/versions/{version}/bin/agent", "\x00binary")
    host.file("x/bin/agent", "\x00binary")
    host.on_path(".pyenv/shims")
    assert dict(host.find("agent").names) == {
        "agent": str(host.home / f".pyenv/versions/{expected}/bin/agent")
    }


def test_a_shim_with_nothing_behind_is_passed_over(host: Host) -> None:
    host.file(".pyenv/shims/agent", '#!/usr/bin/env bash\nexec "/o/bin/pyenv" exec "$program" "$@"\n')
    host.file("bin/agent", "\x00binary")
    host.on_path(".pyenv/shims", "bin")
    assert host.shown("agent") == {"bin/agent"}


def test_shims_of_other_managers(host: Host) -> None:
    host.file(
        ".asdf/shims/agent", "#!/usr/bin/env bash\n# asdf-plugin: nodejs 20.1.0\nexec asdf exec agent\n"
    )
    host.file(".asdf/installs/nodejs/20.1.0/bin/agent", "\x00binary")
    assert shims.program_behind(str(host.home / ".asdf/shims/agent")).endswith("nodejs/20.1.0/bin/agent")
    host.file("bin/mise", "\x00binary")
    host.link("mise/shims/agent", host.home / "bin/mise")
    host.file("mise/installs/node/9.0.0/bin/agent", "\x00binary")
    host.file("mise/installs/node/20.0.0/bin/agent", "\x00binary")
    assert shims.program_behind(str(host.home / "mise/shims/agent")).endswith("node/20.0.0/bin/agent")
    host.file(".volta/bin/volta-shim", "\x00binary")
    host.link(".volta/bin/agent", "volta-shim")
    host.file(".volta/tools/image/packages/agent/bin/agent", "\x00binary")
    assert shims.program_behind(str(host.home / ".volta/bin/agent")).endswith("packages/agent/bin/agent")


def test_a_missing_program_says_where_it_was_looked_for(host: Host) -> None:
    host.on_path("bin")
    with pytest.raises(UnavailableError, match=rf"agent was not found.*{host.home}/bin.*/usr/bin"):
        host.find("agent")
    with pytest.raises(UnavailableError, match=r"claude was not found.*install it first: npm install"):
        host.find("claude")
    with pytest.raises(UnavailableError, match="no such program"):
        host.find(str(host.home / "agent"))


def test_a_missing_interpreter_is_named(host: Host) -> None:
    host.file("bin/agent", "#!/opt/none/python\n")
    host.on_path("bin")
    with pytest.raises(UnavailableError, match="/opt/none/python"):
        host.find("agent")


@pytest.mark.parametrize("where", ["", ".config/tool", ".ssh"])
def test_private_folders_are_never_shown(host: Host, where: str) -> None:
    folder = where + "/" if where else ""
    host.file(f"{folder}pyvenv.cfg", "home = /usr/bin\n", 0o644)
    host.link(f"{folder}bin/python", "/usr/bin/env")
    host.file(f"{folder}bin/agent", f"#!{host.home}/{folder}bin/python\n")
    with pytest.raises(UsageError, match="private files"):
        host.find(f"{host.home}/{folder}bin/agent")


def test_a_folder_above_the_home_is_never_shown(host: Host) -> None:
    package = host.home.parent / "package.json"
    package.write_text("{}")
    host.file("cli.js", "#!/usr/bin/env node\n")
    host.file("bin/node", "\x00binary")
    host.on_path("bin")
    with pytest.raises(UsageError, match="private files"):
        host.find(str(host.home / "cli.js"))


@pytest.mark.parametrize("name", ["", "./run.sh", "bin/run", "/home/agent/workspace/run"])
def test_the_bottles_own_programs_need_nothing(host: Host, name: str) -> None:
    assert host.find(name) == ProgramFiles()


def test_what_the_system_has_is_not_shown_twice(host: Host) -> None:
    assert host.find("sh").binds == ()


def test_libraries_with_a_search_path_of_their_own_are_found() -> None:
    found = elf.libraries(os.path.realpath(sys.executable))
    assert all(Path(library).is_file() for library in found)
    assert elf.libraries("/etc/passwd") == ()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_origin_is_the_folder_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "own.c").write_text("int own(void) { return 7; }")
    (tmp_path / "main.c").write_text("int own(void); int main(void) { return own(); }")
    library, program = tmp_path / "lib" / "libown.so", tmp_path / "bin" / "main"
    os.spawnlp(os.P_WAIT, "gcc", "gcc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "own.c"))
    os.spawnlp(
        os.P_WAIT, "gcc", "gcc", "-o", str(program), str(tmp_path / "main.c"), f"-L{library.parent}", "-lown",
        "-Wl,-rpath,$ORIGIN/../lib",
    )  # fmt: skip
    assert elf.libraries(str(program)) == (str(library),)


def test_a_damaged_program_has_no_libraries(tmp_path: Path) -> None:
    whole = Path(os.path.realpath(sys.executable)).read_bytes()
    for length in (0, 5, 40, 64, 100, 500):
        damaged = tmp_path / "damaged"
        damaged.write_bytes(whole[:length])
        assert elf.libraries(str(damaged)) == ()


def test_a_dependency_name_cannot_leave_the_modules(tmp_path: Path) -> None:
    package = tmp_path / "node_modules" / "agent"
    (package).mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "package.json").write_text("{}")
    (package / "package.json").write_text(
        json.dumps({"dependencies": {"../../secret": "1", "..": "1", "a/b/c": "1"}})
    )
    assert [folder for folder, _ in node_packages.closure(str(package))] == [str(package)]
