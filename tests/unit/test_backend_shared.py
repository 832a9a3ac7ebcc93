"""What lies above the backends: choosing one, CA layout, provisioning, session end."""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from bot_bottle import bottle_state
from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.agent_provider.plan import AgentProvisionPlan, ProvisionFile
from bot_bottle.backend import launch, registry, util
from bot_bottle.backend.base import ExecResult, ProbeLevel, ProbeResult
from bot_bottle.backend.plan import BottlePlan, BottleSpec
from bot_bottle.backend.prepare import metadata_for
from bot_bottle.backend.provision import provision, refusal_of
from bot_bottle.decision import Deny
from bot_bottle.errors import LaunchError, UnavailableError, UsageError
from bot_bottle.git_gate.report import denial_lines
from bot_bottle.manifest.model import Manifest, ManifestAgent, ManifestAgentProvider, ManifestBottle
from bot_bottle.secret import Secret
from tests.support.local_streams import LocalStreams
from tests.support.no_room import WORDS, no_room

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeBackend:
    """A backend whose probe and launch say what the test wants."""

    def __init__(self, name: str, *, level: str = "ok", bottle: object = None) -> None:
        self.name, self.level, self.bottle = name, level, bottle
        self.calls: list[str] = []
        self.unforgettable = False

    def end_ahead(self) -> None:
        self.calls.append("end ahead")

    def probe(self) -> ProbeResult:
        level: ProbeLevel = "ok" if self.level == "ok" else "unavailable"
        return ProbeResult(backend=self.name, level=level, detail=f"{self.name} says no", remedy="run this")

    @contextmanager
    def launch(self, plan: BottlePlan) -> Iterator[object]:
        if isinstance(self.bottle, BaseException):
            raise self.bottle
        (plan.state_dir / "home").mkdir(exist_ok=True)
        util.write_trust(plan.state_dir, certificate())
        yield self.bottle

    def build(self, plan: BottlePlan) -> None:
        self.calls.append(f"build, state {'there' if plan.state_dir.exists() else 'missing'}")

    def forget(self, identity: str) -> None:
        self.calls.append(f"forget {identity}, state {'there' if bottle_state.list_states() else 'missing'}")
        if self.unforgettable:
            raise UnavailableError("the engine is gone")

    def kept_at(self, identity: str) -> str:
        return f"the volume of {identity}"


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeBackend]:
    table = {"first": FakeBackend("first"), "second": FakeBackend("second")}
    monkeypatch.setattr(registry, "_BACKENDS", dict.fromkeys(table, ""))
    monkeypatch.setattr(registry, "get_bottle_backend", lambda name: table[name])
    return table


def test_the_choice_is_flag_then_variable_then_config_then_what_works(
    backends: dict[str, FakeBackend],
) -> None:
    env = {registry.ENV_BACKEND: "second"}
    assert registry.choose_backend("first", env, "second")[0].name == "first"
    assert registry.choose_backend("", env, "first")[0].name == "second"
    assert registry.choose_backend("", {}, "second")[0].name == "second"
    assert registry.choose_backend("", {})[0].name == "first"
    backends["first"].level = "unavailable"
    backend, why = registry.choose_backend("", {})
    assert backend.name == "second"
    assert "first says no" in why


def test_the_likely_backend_is_the_first_that_is_tried_and_is_let_go_where_it_does_not_work(
    backends: dict[str, FakeBackend],
) -> None:
    assert registry.likely_backend("", {}, "second").name == "second"
    likely = registry.likely_backend("", {})
    assert registry.choose_backend("", {}, likely=likely)[0] is likely
    assert backends["first"].calls == []
    backends["first"].level = "unavailable"
    assert registry.choose_backend("", {}, likely=likely)[0].name == "second"
    assert backends["first"].calls == ["end ahead"]


def test_no_backend_is_every_sentence_at_once_and_nothing_runs(backends: dict[str, FakeBackend]) -> None:
    for backend in backends.values():
        backend.level = "unavailable"
    with pytest.raises(UnavailableError) as caught:
        registry.choose_backend("", {})
    assert "first says no; run this" in str(caught.value)
    assert "second says no" in str(caught.value)


def test_an_unknown_backend_lists_those_that_exist() -> None:
    with pytest.raises(UsageError, match="bubblewrap"):
        registry.get_bottle_backend("gvisor\x1b[31m")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BottlePlan:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "bb"))
    identity = "tester-abcde"
    agent = ManifestAgent(name="tester", path=tmp_path / "tester.md", bottle="b")
    manifest = Manifest(agents={agent.name: agent})
    return BottlePlan(
        spec=BottleSpec(manifest=manifest, agent_name=agent.name, user_cwd=tmp_path),
        identity=identity,
        backend_name="fake",
        bottle=ManifestBottle(
            name="b", path=tmp_path / "b.md", agent_provider=ManifestAgentProvider(template="command")
        ),
        provision=AgentProvisionPlan(template="command", program="", argv=("true",)),
        routes=(),
        state_dir=bottle_state.bottle_state_dir(identity),
        audit_path=tmp_path / "audit.jsonl",
        guest_env={},
        secrets={"TOKEN": Secret("hidden-value")},
    )


class OneShot(LocalStreams):
    """A bottle whose agent ends as told."""

    provisioned = False

    def __init__(self, outcome: int | BaseException) -> None:
        super().__init__()
        self.outcome = outcome
        self.told: list[str] = []

    def await_ready(self) -> None:
        self.told.append("await_ready")

    def exec_stream(self, script: str, *, stdin: BinaryIO | None, stdout: BinaryIO | None) -> ExecResult:
        del stdout
        self.told.append(script if script.startswith("exec git") else "place")
        while stdin is not None and stdin.read(1 << 16):
            pass
        return ExecResult(returncode=0, stdout=b"", stderr=b"")

    def exec_agent(self, argv: object, *, tty: bool, side: object = None) -> int:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def run(
    plan: BottlePlan,
    bottle: object,
    monkeypatch: pytest.MonkeyPatch,
    backend: FakeBackend | None = None,
) -> int:
    backend = backend or FakeBackend("fake")
    backend.bottle = bottle
    monkeypatch.setattr(launch, "get_bottle_backend", lambda _name: backend)
    return launch.run_session(plan, tty=False).exit_code


@pytest.mark.parametrize(
    ("resumed", "order"),
    [(False, ["place", "await_ready"]), (True, ["await_ready", "place", "await_ready"])],
    ids=["fresh", "resumed"],
)
def test_a_fresh_bottles_files_are_placed_while_its_sidecar_comes_up_and_a_kept_homes_after(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch, resumed: bool, order: list[str]
) -> None:
    file = ProvisionFile(path=f"{AGENT_HOME}/x", content=b"x", mode=0o600)
    plan = replace(plan, provision=replace(plan.provision, files=(file,)))
    if resumed:
        bottle_state.create_state(metadata_for(plan))
        plan = replace(plan, spec=replace(plan.spec, identity=plan.identity))
    bottle = OneShot(0)
    assert run(plan, bottle, monkeypatch) == 0
    assert bottle.told == order


@pytest.mark.parametrize("resumed", [False, True], ids=["fresh", "resumed"])
def test_a_repository_is_cloned_once_the_gate_answers_and_only_into_a_fresh_bottle(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    plan = replace(plan, spec=replace(plan.spec, repo="ssh://git@git.test/project.git"))
    if resumed:
        bottle_state.create_state(metadata_for(plan))
        plan = replace(plan, spec=replace(plan.spec, identity=plan.identity))
    bottle = OneShot(0)
    assert run(plan, bottle, monkeypatch) == 0
    clone = [word for word in bottle.told if word.startswith("exec git clone")]
    assert len(clone) == (0 if resumed else 1)
    if clone:
        assert bottle.told.index("await_ready") < bottle.told.index(clone[0])


def test_images_are_built_before_anything_is_claimed_and_kept_things_go_before_the_state(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = FakeBackend("fake")
    assert run(plan, OneShot(0), monkeypatch, backend) == 0
    assert backend.calls == ["build, state missing", "forget tester-abcde, state there"]
    assert "egress CA SHA-256" in capsys.readouterr().err


def test_what_the_backend_cannot_forget_keeps_the_state_to_try_again_from(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = FakeBackend("fake")
    backend.unforgettable = True
    assert run(plan, OneShot(0), monkeypatch, backend) == 0
    assert [state.identity for state in bottle_state.list_states()] == ["tester-abcde"]
    said = capsys.readouterr().err
    assert "the engine is gone" in said
    assert "bot-bottle cleanup tester-abcde" in said


def test_a_build_that_fails_leaves_nothing(plan: BottlePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unbuildable(FakeBackend):
        def build(self, plan: BottlePlan) -> None:
            raise LaunchError("the Dockerfile is wrong")

    with pytest.raises(LaunchError, match="Dockerfile"):
        run(plan, OneShot(0), monkeypatch, Unbuildable("fake"))
    bottle_state.create_state(bottle_state.BottleMetadata(identity=plan.identity))  # as prepare() leaves it
    with pytest.raises(LaunchError, match="Dockerfile"):
        run(plan, OneShot(0), monkeypatch, Unbuildable("fake"))
    assert bottle_state.list_states() == ()


def test_exit_0_leaves_nothing(plan: BottlePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(plan, OneShot(0), monkeypatch) == 0
    assert bottle_state.list_states() == ()


def test_any_other_end_keeps_the_state_and_says_how_to_go_on(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(plan, OneShot(137), monkeypatch) == 137
    (state,) = bottle_state.list_states()
    assert state.status == "preserved"
    assert state.metadata is not None
    assert (state.metadata.backend, state.metadata.exit_code) == ("fake", 137)
    assert "bot-bottle resume tester-abcde" in capsys.readouterr().err


def test_ctrl_c_in_a_session_keeps_the_work(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(plan, OneShot(KeyboardInterrupt()), monkeypatch)
    assert [state.status for state in bottle_state.list_states()] == ["preserved"]
    assert "bot-bottle resume tester-abcde" in capsys.readouterr().err


@pytest.mark.parametrize("failure", [LaunchError("no"), KeyboardInterrupt()])
def test_a_failed_bring_up_leaves_nothing(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    with pytest.raises(type(failure)):
        run(plan, failure, monkeypatch)
    assert bottle_state.list_states() == ()


def test_a_bring_up_that_cannot_write_is_a_sentence_and_leaves_nothing(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{plan.state_dir}/trust/ca.pem")
    with pytest.raises(LaunchError, match=r"/trust/ca\.pem: No space left on device"):
        run(plan, full, monkeypatch)
    assert bottle_state.list_states() == ()
    with pytest.raises(LaunchError, match=r"tester-abcde: Input/output error"):
        run(plan, OSError(errno.EIO, os.strerror(errno.EIO)), monkeypatch)
    with no_room(), pytest.raises(LaunchError, match=f"tester-abcde: .*{WORDS}"):
        run(plan, OneShot(0), monkeypatch)
    assert list(plan.state_dir.parent.iterdir()) == []


def test_an_error_of_a_running_session_is_not_called_a_failed_start(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TimeoutError):
        run(plan, OneShot(TimeoutError()), monkeypatch)
    assert [state.status for state in bottle_state.list_states()] == ["preserved"]


class Filling(OneShot):
    """A bottle whose agent fills the disk."""

    def __init__(self, outcome: int, stack: ExitStack) -> None:
        super().__init__(outcome)
        self.stack = stack

    def exec_agent(self, argv: object, *, tty: bool, side: object = None) -> int:
        self.stack.enter_context(no_room())
        return super().exec_agent(argv, tty=tty, side=side)


def test_a_disk_that_the_agent_filled_changes_neither_its_exit_code_nor_the_way_on(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        code = run(plan, Filling(7, stack), monkeypatch)
    said = capsys.readouterr().err
    assert code == 7
    assert "the exit code could not be recorded" in said
    assert WORDS in said
    assert "bot-bottle resume tester-abcde" in said
    assert [state.status for state in bottle_state.list_states()] == ["preserved"]


def test_a_state_that_cannot_be_removed_is_said_and_the_agents_end_stands(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_identity: str) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), f"{plan.state_dir}/home/x")

    monkeypatch.setattr(bottle_state, "cleanup_state", refuse)
    assert run(plan, OneShot(0), monkeypatch) == 0
    said = capsys.readouterr().err
    assert "home/x" in said
    assert "bot-bottle cleanup tester-abcde" in said


def test_a_failed_resume_never_removes_the_work(plan: BottlePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    run(plan, OneShot(1), monkeypatch)
    resumed = replace(plan, spec=replace(plan.spec, identity=plan.identity))
    bottle_state.clear_preserve_marker(plan.identity)
    with pytest.raises(LaunchError):
        run(resumed, LaunchError("no"), monkeypatch)
    assert [state.identity for state in bottle_state.list_states()] == [plan.identity]


def test_provider_files_land_below_the_home_only(
    plan: BottlePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot_bottle.backend.provision.AGENT_HOME", str(tmp_path / "home"))
    files = (ProvisionFile(path=f"{tmp_path}/home/.config/x.json", content=b"{}", mode=0o640),)
    provided = replace(plan.provision, dirs=(f"{tmp_path}/home/.cache",), files=files)
    provision(LocalStreams(), replace(plan, provision=provided), resumed=False)
    placed = tmp_path / "home" / ".config" / "x.json"
    assert placed.read_bytes() == b"{}"
    assert stat.S_IMODE(placed.stat().st_mode) == 0o640
    assert (tmp_path / "home" / ".cache").is_dir()
    for path in ("/etc/passwd", f"{tmp_path}/home/../up", f"{tmp_path}/home", "relative"):
        bad = replace(plan.provision, files=(ProvisionFile(path=path, content=b""),))
        with pytest.raises(UsageError, match="below"):
            provision(LocalStreams(), replace(plan, provision=bad), resumed=False)


def certificate() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    built = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=now,
        not_valid_after=now + dt.timedelta(hours=1),
    ).sign(key, hashes.SHA256())
    return built.public_bytes(Encoding.PEM).decode()


def test_the_trust_folder_holds_the_ca_under_the_names_the_variables_say(
    plan: BottlePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    plan.state_dir.mkdir(parents=True)
    pem = certificate()
    folder = util.write_trust(plan.state_dir, pem)
    for variable in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE"):
        guest = Path(util.network_env()[variable])
        assert str(guest.parent) == util.AGENT_CA_DIR
        assert (folder / guest.name).read_text() == pem
    cert, label = util.select_ca_cert(plan)
    fingerprint = util.log_ca_fingerprint(cert, label)
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    assert fingerprint == hashlib.sha256(der).hexdigest()
    assert fingerprint in capsys.readouterr().err


def test_the_plan_and_the_sidecar_config_show_no_value(plan: BottlePlan) -> None:
    assert "hidden-value" not in repr(plan)
    assert "hidden-value" not in repr(util.sidecar_config(plan))
    assert b"hidden-value" in util.sidecar_config(plan).to_wire()
    assert util.sidecar_config(plan).secrets["TOKEN"].reveal() == "hidden-value"
    assert AGENT_HOME.startswith("/home/")


def test_keep_keeps_the_work_after_exit_0_too(
    plan: BottlePlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(replace(plan, spec=replace(plan.spec, keep=True)), OneShot(0), monkeypatch) == 0
    assert [state.status for state in bottle_state.list_states()] == ["preserved"]
    said = capsys.readouterr().err
    assert "bot-bottle resume tester-abcde" in said
    assert "(the volume of tester-abcde)" in said


def test_of_a_refused_clone_the_operator_reads_the_reason_and_not_the_agents_advice() -> None:
    lines = denial_lines(
        Deny(reason="r", rule="git.x", message="it cannot be reached", next_step="Try later")
    )
    stderr = "".join(f"remote: {line}\n" for line in lines) + "fatal: unable to access 'https://h/': 502\n"
    assert refusal_of(stderr.encode()) == "it cannot be reached"
    assert refusal_of(b"fatal: something else\n") == ""
