"""The scripts around commands in a bottle made from an image, run by every shell this machine has."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.backend import inside
from bot_bottle.backend.docker.agent import _HOLD
from bot_bottle.backend.transfer import quote
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MARK = "5e" * 16
_SHELLS = [
    *([name] for name in ("sh", "dash", "bash", "ksh", "mksh") if shutil.which(name)),
    *([["busybox", "sh"]] if shutil.which("busybox") else []),
]


class Place:
    """A folder in place of the container's own, and a shell."""

    def __init__(self, folder: Path, shell: Sequence[str]) -> None:
        self.folder = folder
        self.shell = [*shell]
        (folder / "exec").mkdir()
        self.write_env({"PATH": os.defpath})

    def write_env(self, env: dict[str, str]) -> None:
        (self.folder / "env").write_bytes(inside.render_env(env))

    def argv(self, script: str, *args: str) -> list[str]:
        return [*self.shell, "-c", script.replace(inside.OWN_DIR, str(self.folder)), "sh", *args]

    def run(
        self, script: str, *args: str, env: dict[str, str] | None = None, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.argv(script, *args),
            env={"PATH": os.defpath, **(env or {})},
            input=stdin,
            capture_output=True,
            start_new_session=True,
            check=False,
            timeout=60,
        )

    def slot(self) -> str:
        return (self.folder / "exec" / "0").read_text().strip()


@pytest.fixture(params=_SHELLS, ids=" ".join)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


def parted(data: bytes) -> tuple[bytes, int | None]:
    output = inside.MarkedOutput(MARK)
    return output.feed(data), output.code


def test_a_script_gives_its_streams_and_its_end_on_both(place: Place) -> None:
    script = "cat; echo err >&2; exit 7"
    done = place.run(inside.PIPED, "0", MARK, env={inside.SCRIPT_VARIABLE: script}, stdin=b"in")
    assert parted(done.stdout) == (b"in", 7)
    assert parted(done.stderr) == (b"err\n", 7)


def test_a_program_has_the_files_environment_and_three_descriptors(place: Place) -> None:
    env = {"PATH": "/first", "d": "x", "code": "77", "MARK": "a 'b'\n$c `d` \\"}
    place.write_env(env)
    outer = {"HOSTNAME": "h", "FROM_IMAGE": "kept"}
    done = place.run(inside.PIPED, "0", MARK, "/usr/bin/env", "-0", env=outer)
    output, code = parted(done.stdout)
    seen = dict(line.split("=", 1) for line in output.decode().split("\0") if line)
    assert code == 0
    assert seen.pop("PATH") == f"/first:{os.defpath}"
    assert {name: seen.get(name) for name in ("d", "code", "MARK", "FROM_IMAGE")} == {
        "d": "x",
        "code": "77",
        "MARK": env["MARK"],
        "FROM_IMAGE": "kept",
    }
    assert not {"HOSTNAME", inside.SCRIPT_VARIABLE} & set(seen)
    listing = place.run(inside.PIPED, "0", MARK, "/bin/ls", "/proc/self/fd")
    assert parted(listing.stdout)[0].split() == [b"0", b"1", b"2", b"3"]  # the last is the listing's own


def test_a_killed_program_counts_as_128_and_more_and_the_shell_says_nothing(place: Place) -> None:
    done = place.run(inside.PIPED, "0", MARK, env={inside.SCRIPT_VARIABLE: "kill -KILL $$"})
    assert parted(done.stdout) == (b"", 137)
    assert parted(done.stderr) == (b"", 137)


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/no/such/program", 127)])
def test_a_program_that_is_not_there_is_told_from_one_that_ends_so(
    place: Place, program: str, code: int
) -> None:
    done = place.run(inside.PIPED, "0", MARK, program)
    assert parted(done.stdout) == (b"", code)
    assert place.run(inside.LOOK, "0").stdout.split() == [b"failed", str(code).encode()]
    done = place.run(inside.PIPED, "0", MARK, env={inside.SCRIPT_VARIABLE: f"exit {code}"})
    assert parted(done.stdout) == (b"", code)
    assert place.run(inside.LOOK, "0").stdout.split()[:1] != [b"failed"]


def test_on_a_terminal_the_program_takes_the_shells_place(place: Place) -> None:
    place.write_env({"PATH": os.defpath, "GREETING": "hello"})
    with subprocess.Popen(
        place.argv(inside.ON_TERMINAL, "0", "sh", "-c", 'echo "$$ $GREETING"; exit 9'),
        stdout=subprocess.PIPE,
        env={"PATH": os.defpath},
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read().split()
    assert said == [str(process.pid).encode(), b"hello"]
    assert (process.returncode, place.slot()) == (9, str(process.pid))
    assert place.run(inside.ON_TERMINAL, "0", "no-such-program").returncode == 127
    assert place.run(inside.LOOK, "0").stdout == b"failed 127\n"


def test_all_of_a_session_is_killed_and_nothing_else(place: Place) -> None:
    script = "sleep 1000 & (sleep 1000 &) ; echo started; sleep 1000"
    argv = place.argv(inside.PIPED, "0", MARK)
    env = {"PATH": os.defpath, inside.SCRIPT_VARIABLE: script}
    with (
        subprocess.Popen(["sleep", "1000"], start_new_session=True) as bystander,
        subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"started\n"
            assert place.run(inside.SIGNAL, "0", "KILL").returncode == 0
            assert process.stdout.read() == b""  # nothing of it is left to hold the pipe open
            assert process.wait(30) == -signal.SIGKILL
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_closed_sink_is_told_to_the_program_and_not_to_its_shell(place: Place) -> None:
    argv = place.argv(inside.PIPED, "0", MARK)
    env = {"PATH": os.defpath, inside.SCRIPT_VARIABLE: "echo started; exec sleep 1000"}
    with subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        assert place.run(inside.SIGNAL, "0", "PIPE").returncode == 0
        assert parted(process.stdout.read()) == (b"", 128 + signal.SIGPIPE)


@pytest.mark.parametrize("text", ["", "1", "0", "00", "01", "-1", "12x", "x", "failed 127", "$(id)"])
def test_a_slot_that_names_no_session_kills_nothing(place: Place, text: str) -> None:
    """Whatever the script would kill is only written down here: a mistake would end this machine's own."""
    (place.folder / "exec" / "0").write_text(f"{text}\n")
    done = place.run('kill() { echo "would kill $*"; }\n' + inside.SIGNAL, "0", "KILL")
    assert (done.returncode, done.stdout) == (3, b"")


def test_the_first_process_waits_for_the_end_of_its_input_and_no_longer(place: Place) -> None:
    with subprocess.Popen(place.argv(_HOLD), stdin=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin is not None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.stdin.close()
        process.wait(30)


def test_the_first_process_ends_when_the_engine_tells_it_to(place: Place) -> None:
    argv = place.argv(f"{_HOLD}".replace("wait", "echo ready; wait"))
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(30) == 0
        process.stdin.close()


def test_root_places_the_ca_and_the_environment(place: Place, tmp_path: Path) -> None:
    (place.folder / "exec").rmdir()
    (place.folder / "env").unlink()
    script = inside.place_script(*(str(tmp_path / name) for name in ("bundle", "certi'ficate", "sto re")))
    env = inside.render_env({"A": "1", "B": "two\nlines \\ \xe4 "})
    store = bytes(range(256)) * 2 + b"%s %d\n"
    line = inside.escaped(store) + b"\n"
    done = place.run(script, stdin=b"mark\n" + env + b"mark\n" + line + b"-----CA-----\nmark\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"placed\n", b"")
    for name in ("bundle", "certi'ficate"):
        assert (tmp_path / name).read_text() == "-----CA-----\nmark\n"
    assert (tmp_path / "sto re").read_bytes() == store
    assert (place.folder / "env").read_bytes() == env
    assert (place.folder / "env").stat().st_mode & 0o777 == 0o444
    assert (place.folder / "exec").stat().st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize("shell", _SHELLS, ids=lambda words: words[0])
def test_any_bytes_come_back_from_what_a_shell_prints(shell: list[str]) -> None:
    ends = b"".join(b"\0%c\0\0%c" % (byte, byte) for byte in range(256))
    data = bytes(512) + ends + b"\\0\\00\\\0007%s\1\0018"
    text = inside.escaped(data)
    assert text.count(b"\n") == 0
    assert len(inside.escaped(bytes(512))) == 1024, "zeros are short"
    done = subprocess.run(
        [*shell, "-s"], input=b"printf %b " + quote(text.decode()).encode(), capture_output=True, check=True
    )
    assert done.stdout == data


def test_without_a_ca_root_says_that_it_failed(place: Place, tmp_path: Path) -> None:
    (place.folder / "exec").rmdir()
    script = inside.place_script(*(str(tmp_path / name) for name in ("bundle", "certificate", "store")))
    for said in (b"", b"a store\n"):
        done = place.run(script, stdin=b"mark\nexport A='1'\nmark\n" + said)
        assert done.returncode != 0
        assert not (tmp_path / "bundle").exists()
        (place.folder / "exec").rmdir()


def test_a_kept_home_is_opened_again_and_a_link_in_its_place_is_not_followed(
    place: Place, tmp_path: Path
) -> None:
    home, work = tmp_path / "home", tmp_path / "home" / "workspace"
    work.mkdir(parents=True)
    work.chmod(0)
    home.chmod(0)
    assert place.run(inside.OPEN_HOME, str(home), str(work)).returncode == 0
    assert home.stat().st_mode & 0o700 == work.stat().st_mode & 0o700 == 0o700
    work.rmdir()
    assert place.run(inside.OPEN_HOME, str(home), str(work)).returncode == 0
    work.rmdir()
    work.symlink_to(tmp_path)
    assert place.run(inside.OPEN_HOME, str(home), str(work)).returncode != 0


@given(value=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=60))
@settings(max_examples=60, deadline=None)
def test_every_value_survives_the_shell(value: str) -> None:
    script = inside.render_env({"VALUE": value}) + b'printf "%s." "$VALUE"'
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, check=True)
    assert done.stdout.decode() == f"{value}."


@pytest.mark.parametrize("name", ["", "a b", "x;y", "1A", "A-B", "A\n", "Ä"])
def test_a_name_that_a_shell_would_read_as_something_else_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        inside.render_env({name: "v"})


@given(
    output=st.binary(max_size=80),
    noise=st.sampled_from([b"", b"\x1e", b"\x1e5e5e", ("\x1e" + MARK[:-1]).encode(), b"\x1e\x1e5"]),
    code=st.integers(min_value=0, max_value=255),
    cuts=st.lists(st.integers(min_value=1, max_value=20), max_size=20),
)
def test_output_ends_exactly_at_its_mark(output: bytes, noise: bytes, code: int, cuts: list[int]) -> None:
    data = output + noise + f"\x1e{MARK}{code};".encode() + b"from the background"
    marked, seen = inside.MarkedOutput(MARK), b""
    for cut in [*cuts, len(data)]:
        seen += marked.feed(data[:cut])
        data = data[cut:]
    assert (seen, marked.code) == (output + noise, code)


def test_without_a_mark_nothing_is_held_back_for_good() -> None:
    marked = inside.MarkedOutput(MARK)
    assert marked.feed(b"whole\x1e5e") == b"whole"
    assert marked.code is None
    assert marked.rest() == b"\x1e5e"
