"""The smolmachines backend without a machine: what goes in, what is sorted out, what is refused before."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.backend import inside, registry, seccomp
from bot_bottle.backend.base import ProbeResult
from bot_bottle.backend.client_env import java_truststore
from bot_bottle.backend.limits import EffectiveLimits
from bot_bottle.backend.smolmachines import engine, freezing, guest, images, machine, probe
from bot_bottle.backend.smolmachines.client import CommandOutput
from bot_bottle.backend.smolmachines.machine_code import MACHINE
from bot_bottle.backend.smolmachines.starter import starter_program
from bot_bottle.egress.routes import EgressRoute
from bot_bottle.errors import LaunchError, ManifestError, UnavailableError, UsageError
from bot_bottle.manifest.model import ManifestAgentProvider, ManifestBottle
from bot_bottle.operator_config import OperatorConfig, SmolmachinesConfig, load_operator_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHELLS = [
    command
    for command in (("dash",), ("bash", "--posix"), ("busybox", "sh"))
    if shutil.which(command[0]) is not None
]
LIMITS = EffectiveLimits(memory=512 << 20, cpus=None, processes=4000, open_files=200)
MARK = "0123456789abcdef0123456789abcdef"
#: Classic BPF that lets everything through: BPF_RET, SECCOMP_RET_ALLOW.
FILTER = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)


def route(host: str) -> EgressRoute:
    return EgressRoute(host=host, origin=f"routes[{host}]")


# What goes in.


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), min_size=1))
def test_a_call_is_one_line_and_any_shell_reads_it_back(argv: list[str]) -> None:
    line = guest.call_line("7", MARK, argv)
    assert line.count(b"\n") == 1
    assert line.isascii()
    script = 'IFS= read -r call; eval "$(printf %b "$call")"; printf "%s\\0" "$@"; cat'
    for shell in SHELLS:
        done = subprocess.run(
            [*shell, "-c", script], input=line + b"the rest", capture_output=True, check=True
        )
        *words, rest = done.stdout.split(b"\0")
        assert [word.decode() for word in words] == ["7", MARK, *argv]
        assert rest == b"the rest", "what follows the call is the command's own input"


def test_every_route_that_is_one_name_resolves_to_the_sidecar() -> None:
    routes = [
        route("api.test"),
        route("*.wild.test"),
        route("203.0.113.9"),
        route("api.test"),
        route("b.test"),
    ]
    names = guest.hosts_of(routes)
    assert names == ("_egress.local", "api.test", "b.test")
    assert guest.hosts_file(names).splitlines()[2:] == [f"{guest.SIDECAR_ADDRESS} {name}" for name in names]


def test_the_set_up_holds_values_as_they_are() -> None:
    nasty = "@CA@ @ENV@ 'quoted' \"$HOME\" `id` \\ \n@RUN@"
    script = guest.set_up_script(
        env={"NASTY": nasty},
        ca_pem="@ENV@A",
        hosts=["a.test"],
        limits=LIMITS,
        fresh=True,
        filter_program=FILTER,
    )
    written = script.partition("\nprintf %s ")[2]
    assert "@CA@ @ENV@" in written, "a value that looks like a place for another stays what it is"
    assert inside.escaped(java_truststore("@ENV@A")).decode() in script
    checked = subprocess.run(["sh", "-n"], input=script.encode(), capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "chown -R 1000:1000 /home/agent" in script
    kept = guest.set_up_script(env={}, ca_pem="", hosts=[], limits=LIMITS, fresh=False, filter_program=b"")
    assert "chown -R" not in kept
    assert "1000:1000" not in kept


def test_a_variable_that_no_shell_takes_is_told() -> None:
    with pytest.raises(UsageError, match="A-B"):
        guest.set_up_script(
            env={"A-B": "1"}, ca_pem="", hosts=[], limits=LIMITS, fresh=False, filter_program=b""
        )


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("setpriv setsid\n", ("setsid", "setpriv", "--no-new-privs")),
        ("noise\n- setsid\n", ("setsid",)),
        ("setpriv -\n", ("setpriv", "--no-new-privs")),
        ("- -\n", ()),
    ],
)
def test_what_the_image_can_do_goes_before_each_command(told: str, words: tuple[str, ...]) -> None:
    found = guest.starter(told, ours=False)
    assert (found.user, found.piped) == ("1000:1000", words)
    assert "setsid" not in found.terminal


def test_a_starter_of_ours_begins_as_root_and_is_written_whole() -> None:
    found = guest.starter("", ours=True)
    assert (found.user, found.piped) == ("0:0", ("/run/bot-bottle/start",))
    script = guest.set_up_script(
        env={}, ca_pem="", hosts=[], limits=LIMITS, fresh=False, filter_program=FILTER
    )
    line = next(line for line in script.splitlines() if line.endswith(f">{found.piped[0]}"))
    for shell in SHELLS:
        done = subprocess.run([*shell, "-c", line.partition(" >")[0]], capture_output=True, check=True)
        assert done.stdout == starter_program(1000, FILTER, terminal=False)


only_x86_64 = pytest.mark.skipif(platform.machine() != MACHINE, reason=f"the starter is made for {MACHINE}")


@only_x86_64
@pytest.mark.parametrize("terminal", [False, True])
def test_the_starter_gives_up_every_right_or_runs_nothing(tmp_path: Path, *, terminal: bool) -> None:
    program = tmp_path / "start"
    program.write_bytes(starter_program(61357, seccomp.filter_program(), terminal=terminal))
    program.chmod(0o755)
    script = "cat /proc/self/status; cut -d' ' -f1,6 /proc/self/stat; unshare -U true && echo new; exit 7"
    env = {"PATH": "/usr/bin:/bin", "MINE": "1"}
    done = subprocess.run(
        [program, "/bin/sh", "-c", script], env=env, capture_output=True, text=True, check=False
    )
    if os.geteuid() != 0:
        assert (done.returncode, done.stdout) == (126, "")
        return
    assert done.returncode == 7
    fields = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert fields["Uid"] == fields["Gid"] == "61357\t61357\t61357\t61357"
    assert fields["Groups"].strip() == ""
    assert {int(fields[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert "new" not in done.stdout.splitlines()
    own_session = done.stdout.splitlines()[-1].split()[1] != str(os.getsid(0))
    assert own_session is not terminal
    assert subprocess.run([program, "/no/such/program"], check=False).returncode == 126
    assert subprocess.run([program], check=False).returncode == 126


def test_what_is_no_filter_makes_no_starter() -> None:
    for data in (b"", FILTER[:-1], FILTER * 4097):
        with pytest.raises(ValueError, match="filter"):
            starter_program(1000, data, terminal=False)


@pytest.fixture(params=SHELLS, ids=lambda command: command[0])
def run_inside(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """Run a command through the wrapper that stands in a machine, in a folder that stands for its memory."""

    def in_place(text: str) -> str:
        return text.replace(inside.OWN_DIR, str(tmp_path))

    (tmp_path / "exec").mkdir()
    (tmp_path / "env").write_bytes(inside.render_env({"MINE": "one\ntwo"}))
    script = guest.set_up_script(env={}, ca_pem="", hosts=[], limits=LIMITS, fresh=False, filter_program=b"")
    place = tmp_path / "run"
    # The wrapper as the set-up writes it: the shell that reads the set-up takes the quotes away.
    line = f"printf %s {script.partition('printf %s ')[2]}"
    wrapper = subprocess.run(
        ["sh", "-c", in_place(_line_that_writes(line, guest.RUN))], capture_output=True, check=True
    )
    assert wrapper.stderr == b""

    def run(argv: Sequence[str], given: bytes = b"") -> tuple[CommandOutput, bytes, bytes]:
        done = subprocess.run(
            [*request.param, str(place)],
            input=guest.call_line("3", MARK, argv) + given,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "TERM": "engine", "HOME": "/", "LANG": "x", "HOSTNAME": "h"},
            check=False,
        )
        out, err = bytearray(), bytearray()
        output = CommandOutput(MARK, out.extend, err.extend)
        output.take_out(done.stdout)
        output.take_err(b"note: words of the client\n" + done.stderr)
        output.finish()
        return output, bytes(out), bytes(err)

    return run


def _line_that_writes(text: str, place: str) -> str:
    """Cut the one ``printf`` out of the set-up that writes ``place``."""
    end = text.index(f" >{place}\n")
    start = text.rindex("\nprintf %s ", 0, end)
    return text[start + 1 : end] + f" >{place}"


def test_the_wrapper_gives_environment_streams_limits_and_code(run_inside: object) -> None:
    assert callable(run_inside)
    output, out, err = run_inside(["sh", "-c", "cat; env; ulimit -n; ulimit -c; echo e >&2; exit 7"], b"in\n")
    assert (output.code, output.begun) == (7, True)
    assert err == b"e\n"
    lines = out.decode().splitlines()
    assert lines[0] == "in"
    assert lines[-2:] == ["200", "0"]
    assert "MINE=one" in lines
    assert not [line for line in lines if line.startswith(("TERM=", "HOME=", "LANG=", "HOSTNAME="))]


def test_the_wrapper_tells_a_program_that_is_not_there(run_inside: object, tmp_path: Path) -> None:
    assert callable(run_inside)
    output, _, _ = run_inside(["no-such-program"])
    assert output.code == 127
    assert (tmp_path / "exec" / "3").read_text() == "failed 127\n"
    output, _, _ = run_inside(["sh", "-c", "exit 127"])
    assert output.code == 127
    assert not (tmp_path / "exec" / "3").read_text().startswith("failed")


# What comes out.


@given(st.integers(1, 80), st.binary(max_size=60))
def test_output_is_sorted_however_it_is_cut(size: int, data: bytes) -> None:
    mark = b"\x1e" + MARK.encode()
    out, err = bytearray(), bytearray()
    output = CommandOutput(MARK, out.extend, err.extend)
    for stream, take in (
        (data + mark + b"5;", output.take_out),
        (b"note: client\n" + mark + b">" + data + mark + b"5;later", output.take_err),
    ):
        for start in range(0, len(stream), size):
            take(stream[start : start + size])
    assert (bytes(out), bytes(err), output.code) == (data, data, 5)


def test_a_client_that_never_began_is_quoted_and_nothing_passes_for_output() -> None:
    out, err = bytearray(), bytearray()
    output = CommandOutput(MARK, out.extend, err.extend)
    output.take_err(b"note: x\nError: vm not found: \x1b[1mnosuch\n")
    output.finish()
    assert (output.begun, output.code, bytes(out), bytes(err)) == (False, None, b"", b"")
    assert output.words == "Error: vm not found: ?[1mnosuch"


# The engine's surroundings.


def test_neither_credentials_nor_settings_of_the_operators_reach_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SMOL_CLOUD_TOKEN", "cloud-token")
    monkeypatch.setenv("SMOLVM_ALLOW_HOST_LOOPBACK", "1")
    monkeypatch.setenv("SMOLVM_SECCOMP", "off")
    monkeypatch.setenv("MY_API_KEY", "secret")
    smol = SimpleNamespace(SmolError=_SmolError, ConnectOptions=lambda **options: options)
    monkeypatch.setattr(engine, "sdk", lambda: smol)
    before = dict(os.environ)
    with engine.engine_at_work("x"):
        assert not {"SMOL_CLOUD_TOKEN", "SMOLVM_ALLOW_HOST_LOOPBACK", "MY_API_KEY"} & os.environ.keys()
        assert (os.environ["SMOLVM_SECCOMP"], os.environ["SMOLVM_LANDLOCK"]) == ("enforce", "enforce")
        shown = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
        assert "secret" not in shown
        assert "cloud-token" not in shown
    assert dict(os.environ) == before
    assert engine.here() == {"target": "local"}


class _SmolError(Exception):
    """Stands for the SDK's error."""


def test_an_error_of_the_engines_is_one_sentence_and_the_environment_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_API_KEY", "secret")
    monkeypatch.setattr(engine, "sdk", lambda: SimpleNamespace(SmolError=_SmolError))
    with (
        pytest.raises(LaunchError, match=r"^it failed: no boot; \?\[1mhint$"),
        engine.engine_at_work("it failed"),
    ):
        raise _SmolError("no boot\n\n  \x1b[1mhint\n")
    assert os.environ["MY_API_KEY"] == "secret"


def test_a_machine_may_hold_as_many_files_as_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "sdk", lambda: SimpleNamespace(SmolError=_SmolError))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with engine.engine_at_work("x"):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        shown = subprocess.run(["sh", "-c", "ulimit -Sn"], capture_output=True, text=True, check=True).stdout
        assert int(shown) == most
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_a_cloud_token_selects_no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real SDK: its own default would go where the token leads."""
    smol = pytest.importorskip("smol", reason="the smolmachines package is not installed")
    monkeypatch.setenv("SMOL_CLOUD_TOKEN", "cloud-token")
    monkeypatch.setenv("SMOL_CLOUD_URL", "http://127.0.0.1:9")
    with pytest.raises(smol.SmolError) as went_to_the_cloud:
        smol.Machine.list()
    assert went_to_the_cloud.value.code != "NOT_FOUND"
    monkeypatch.setenv("XDG_DATA_HOME", os.environ.get("PYTEST_DEBUG_TEMPROOT", "/tmp"))
    with engine.engine_at_work("list"):
        smol.Machine.list(engine.here(), labels={"bot-bottle.installation": "none"})


# What a machine starts from.


def bottle(image: str = "", dockerfile: str = "") -> ManifestBottle:
    provider = ManifestAgentProvider(template="command", image=image, dockerfile=dockerfile)
    return ManifestBottle(name="b", path=Path("b.md"), agent_provider=provider)


def config(image: str = "") -> OperatorConfig:
    return OperatorConfig(smolmachines=SmolmachinesConfig(image=image))


@pytest.fixture
def root() -> Iterator[Path]:
    """Make something that looks like the root of a file system, open to every account."""
    # Not below pytest's own folders, whose parents may be closed to other accounts.
    with tempfile.TemporaryDirectory(prefix="bot-bottle-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "bin").mkdir()
        (folder / "bin" / "sh").touch()
        yield folder


def test_the_bottles_image_wins_over_the_configs_and_that_over_a_dockerfile_of_ours(root: Path) -> None:
    own = images.image_source(bottle(image=str(root)), config("python:3.12-slim"))
    assert (own.kind, own.value) == ("folder", str(root))
    assert images.image_source(bottle(), config("python:3.12-slim")).kind == "name"
    mine = images.image_source(bottle(dockerfile="/d/Dockerfile"), config("python:3.12-slim"))
    assert (mine.kind, mine.value) == ("dockerfile", "/d/Dockerfile")
    ours = images.image_source(bottle(), config())
    assert (ours.kind, ours.where) == ("dockerfile", "the Dockerfile of command")
    archive = root / "image.tar"
    archive.touch()
    assert images.image_source(bottle(image=str(archive)), config()).kind == "archive"


def test_what_is_no_image_is_told_before_anything_starts(root: Path) -> None:
    with pytest.raises(UsageError, match=r"agent_provider.image: .*missing: No such file"):
        images.image_source(bottle(image=str(root / "missing")), config())
    with pytest.raises(UsageError, match="holds no bin/sh"):
        images.image_source(bottle(image=str(root / "bin")), config())
    # The SDK would start a pack with the pack's own network settings in place of ours.
    (root / "x.smolmachine").touch()
    with pytest.raises(UsageError, match="is a pack"):
        images.image_source(bottle(image=str(root / "x.smolmachine")), config())
    with pytest.raises(UsageError, match="neither a folder nor"):
        images.image_source(bottle(image="/dev/null"), config())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's machines run as other accounts")
def test_a_folder_that_roots_machines_could_not_enter_is_told(root: Path) -> None:
    (root / "closed").mkdir(mode=0o700)
    (root / "bin").rename(root / "closed" / "bin")
    with pytest.raises(UsageError, match=r"cannot enter .*closed"):
        images.image_source(bottle(image=str(root / "closed")), config())


def test_an_image_is_another_one_where_its_archive_or_its_path_is(tmp_path: Path) -> None:
    one, other = tmp_path / "one.tar", tmp_path / "other.tar"
    one.write_bytes(b"1")
    other.write_bytes(b"1")

    def origin(kind: images.Kind, path: Path) -> str:
        return images.origin(images.ImageSource(kind=kind, value="v", where="w"), path)

    # A folder is read at each start, and what is built is named after its content.
    kinds: tuple[images.Kind, ...] = ("archive", "name", "folder", "dockerfile")
    for number, kind in enumerate(kinds):
        before = origin(kind, one)
        assert before == origin(kind, one) != origin(kind, other)
        os.utime(one, ns=(number, number))
        assert (origin(kind, one) == before) is (kind in {"folder", "dockerfile"})


def test_the_config_files_image_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[smolmachines]\nimage = "Not An Image"\n')
    path.chmod(0o600)
    with pytest.raises(ManifestError, match=r"smolmachines.image: Not An Image is no image"):
        load_operator_config(path)
    path.write_text('[smolmachines]\nimage = "/srv/image"\n')
    assert load_operator_config(path).smolmachines.image == "/srv/image"


# Whether it works here.


def test_it_is_never_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def probe(self) -> ProbeResult:
            asked.append(self.name)
            return ProbeResult(backend=self.name, level="unavailable", detail="no")

    monkeypatch.setattr(registry, "get_bottle_backend", Fake)
    with pytest.raises(UnavailableError):
        registry.choose_backend("", {})
    assert asked == ["bubblewrap", "docker"]
    assert registry.choose_backend("smolmachines", {})[0].name == "smolmachines"


def test_without_the_device_or_the_right_to_it_there_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "sdk", lambda: None)
    monkeypatch.setattr(probe, "DEVICE", tmp_path / "kvm")
    missing = probe.obstacle()
    assert missing is not None
    assert "no /dev/kvm" in missing.detail
    assert "modprobe" in missing.remedy
    (tmp_path / "kvm").touch(mode=0o600)
    closed = probe.obstacle()
    if os.geteuid() == 0:
        assert closed is not None
        assert "accounts of their own" in closed.detail
        (tmp_path / "kvm").chmod(0o666)
    assert probe.obstacle() is None


def test_without_the_package_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise UnavailableError("the package smolmachines is not installed; install it with: pip install x")

    monkeypatch.setattr(engine, "sdk", missing)
    found = probe.obstacle()
    assert found is not None
    assert (found.detail, found.remedy) == ("the package smolmachines is not installed", "pip install x")


@pytest.mark.parametrize("nested", [True, False])
def test_where_no_machine_boots_the_sentence_says_why_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    tried: list[str] = []
    removed: list[str] = []

    def create(settings: machine.MachineSettings, binding: machine.Binding | None) -> machine.Machine:
        assert binding is None, "a machine that is only tried has no network"
        tried.append(machine.machine_name(settings.identity))
        raise LaunchError("no boot progress for 30 seconds")

    monkeypatch.setattr(machine.Machine, "create", create)
    monkeypatch.setattr(machine, "delete", removed.append)
    monkeypatch.setattr(probe, "_in_a_virtual_machine", lambda: nested)
    found = probe.try_to_boot()
    assert found.level == "unavailable"
    assert "no boot progress for 30 seconds" in found.detail
    assert ("this is a virtual machine itself, and no machine boots in it" in found.detail) is nested
    assert ("not nested" in found.remedy) is nested
    assert removed == tried
    assert len(set(tried)) == 2, "tried twice: the first may have been a bad moment"


def test_a_verdict_is_kept_until_what_it_rests_on_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    boots: list[int] = []

    def boot() -> ProbeResult:
        boots.append(1)
        return ProbeResult(backend="smolmachines", level="ok", detail=f"boot {len(boots)}")

    device = tmp_path / "kvm"
    device.touch(mode=0o666)
    device.chmod(0o666)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(probe, "DEVICE", device)
    monkeypatch.setattr(probe, "try_to_boot", boot)
    monkeypatch.setattr(engine, "sdk", lambda: None)
    monkeypatch.setattr(engine, "version", lambda: "1.32.2")
    assert [probe.probe().detail, probe.probe().detail] == ["boot 1", "boot 1"]
    device.chmod(0o646)
    assert probe.probe().detail == "boot 2"
    monkeypatch.setattr(engine, "version", lambda: "1.33.0")
    assert probe.probe().detail == "boot 3"
    kept = tmp_path / "home" / "cache" / "smolmachines-probe.json"
    kept.write_text(json.dumps({"key": json.loads(kept.read_text())["key"]}))
    assert probe.probe().detail == "boot 4"


def test_a_machine_that_did_not_come_up_in_time_is_started_once_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    running = machine.Machine(None, "bot-bottle-a-12345")
    tries: list[int] = []

    def start(fails: int, error: LaunchError) -> machine.Machine:
        tries.append(fails)
        if len(tries) <= fails:
            raise error
        return running

    slow = machine.BootError("it did not boot")
    assert machine.boot(lambda: start(1, slow)) is running
    assert len(tries) == 2
    assert capsys.readouterr().err == "bot-bottle: it did not boot; trying once more\n"
    for fails, error, count in ((2, slow, 2), (1, LaunchError("no such image"), 1)):
        tries.clear()
        with pytest.raises(LaunchError, match=str(error)):
            machine.boot(lambda fails=fails, error=error: start(fails, error))  # type: ignore[misc]
        assert len(tries) == count


@pytest.mark.parametrize(
    ("words", "again"),
    [
        ("agent operation failed: the machine did not become ready in 30 seconds", True),
        ("monitor agent: virtio-net up (boot process exited (code 0) before the agent was ready)", True),
        ("boot process exited (code 1) before the agent was ready", False),
        ("image not found", False),
    ],
)
def test_another_try_is_made_where_the_engine_says_that_no_boot_came_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str, *, again: bool
) -> None:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path))
    tries: list[object] = []

    def create(config: object, _here: object) -> object:
        tries.append(config)
        raise _SmolError(words)

    kinds = {name: lambda **said: said for name in ("MachineConfig", "ResourceSpec", "ConnectOptions")}
    smol = SimpleNamespace(SmolError=_SmolError, Machine=SimpleNamespace(create=create), **kinds)
    monkeypatch.setattr(engine, "sdk", lambda: smol)
    settings = machine.MachineSettings(identity="x-aaaaa", image="", limits=LIMITS, processors=1)
    with pytest.raises(LaunchError, match=r"could not be started: ") as told:
        machine.boot(lambda: machine.Machine.create(settings, None))
    assert (len(tries), isinstance(told.value, machine.BootError)) == (2 if again else 1, again)


# Held still.


@pytest.fixture
def monitor() -> Iterator[subprocess.Popen[bytes]]:
    """Run a child that is named like a machine's monitor and has a second thread."""
    code = """
import sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("up", flush=True)
sys.stdin.read()
"""
    argv = [sys.executable, "-c", code, "_boot-vm", "config.json"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        yield child
        child.kill()


def test_a_monitor_is_stopped_with_all_its_threads_and_goes_on(monitor: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(["sleep", "100"]) as other:
        assert not freezing.is_frozen(os.getpid())
        assert freezing.freeze(os.getpid())
        assert freezing.freeze(os.getpid()), "a second panic finds it held still"
        assert freezing.is_frozen(os.getpid())
        assert freezing.is_stopped(monitor.pid)
        assert not freezing.is_stopped(other.pid), "what is no monitor is left alone"
        freezing.thaw(os.getpid())
        assert monitor.stdin is not None
        monitor.stdin.close()
        assert monitor.wait(60) == 0
        assert not freezing.freeze(os.getpid()), "there is none any more"
        other.kill()
