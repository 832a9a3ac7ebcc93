"""The provider codex: what of the host's login comes in, what stays outside, and what each refusal says."""

from __future__ import annotations

import json
import os
import subprocess
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.agent_account import AGENT_HOME, AGENT_WORKSPACE
from bot_bottle.agent_provider.codex import CODEX_HOST_CREDENTIAL_TOKEN_REF
from bot_bottle.agent_provider.codex_auth import PLACEHOLDER_KEY, login_from, placeholder_mark
from bot_bottle.agent_provider.guide import POINTER
from bot_bottle.agent_provider.registry import agent_provision_plan, check_provider_keys
from bot_bottle.backend.util import AGENT_CA_BUNDLE
from bot_bottle.egress.routes import RouteAuth, egress_resolve_token_values, egress_routes_for_bottle
from bot_bottle.errors import UsageError
from bot_bottle.manifest.model import ManifestAgent, ManifestAgentProvider, ManifestBottle
from tests.support.codex_login import ACCOUNT, CodexLogin, claims_of, jwt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.agent_provider.plan import AgentProvisionPlan

CODEX_HOME = f"{AGENT_HOME}/.codex"


def plan(
    home: Path,
    *,
    forward: bool = True,
    api_key: str = "",
    body: str = "",
    headless: bool = False,
    prompt: str = "",
    resume: bool = False,
    preview: bool = False,
    env: Mapping[str, str] | None = None,
) -> AgentProvisionPlan:
    provider = ManifestAgentProvider(template="codex", forward_host_credentials=forward, api_key=api_key)
    bottle = ManifestBottle(name="b", path=home / "b.md", agent_provider=provider)
    agent = ManifestAgent(name="a", path=home / "a.md", bottle="b", prompt=body)
    return agent_provision_plan(
        bottle,
        agent,
        env={"HOME": str(home), **(env or {})},
        headless=headless,
        prompt=prompt,
        resume=resume,
        preview=preview,
    )


def contents(made: AgentProvisionPlan) -> dict[str, str]:
    return {file.path: file.content.decode() for file in made.files}


@pytest.fixture
def login(tmp_path: Path) -> CodexLogin:
    made = CodexLogin()
    made.write(tmp_path / ".codex")
    return made


def test_the_token_goes_to_the_sidecar_and_nowhere_else(tmp_path: Path, login: CodexLogin) -> None:
    made = plan(tmp_path, body="Be brief.", headless=True, prompt="Do it.")
    assert made.provisioned_env == {CODEX_HOST_CREDENTIAL_TOKEN_REF: login.access_token}
    everything = [*made.argv, *made.guest_env.values(), *contents(made).values(), repr(made)]
    assert login.found_in("\n".join(everything).encode()) == []
    (route,) = made.egress_routes
    assert route.host == "chatgpt.com"
    assert route.auth == RouteAuth(
        scheme="Bearer",
        token_ref=CODEX_HOST_CREDENTIAL_TOKEN_REF,
        placeholders=(placeholder_mark(),),
    )
    assert route.tls_passthrough
    assert route.effective_ports == (443,)
    assert route.methods == ("GET", "POST")
    assert route.path_allowlist == (
        "/backend-api/codex/responses",
        "/backend-api/codex/models",
        "/backend-api/wham/accounts/check",
        "/backend-api/wham/usage",
    )
    resolved = egress_resolve_token_values(made.egress_routes, made.provisioned_env)
    assert resolved[CODEX_HOST_CREDENTIAL_TOKEN_REF].reveal() == login.access_token


def test_every_stand_in_for_a_token_bears_the_mark_and_no_real_one(tmp_path: Path, login: CodexLogin) -> None:
    tokens = json.loads(contents(plan(tmp_path))[f"{CODEX_HOME}/auth.json"])["tokens"]
    for name in ("id_token", "access_token"):
        assert tokens[name].startswith(placeholder_mark())
    assert placeholder_mark() not in json.dumps(login.auth_json())


def test_the_bottle_gets_a_stand_in_of_the_same_shape(tmp_path: Path, login: CodexLogin) -> None:
    made = plan(tmp_path)
    stand_in = json.loads(contents(made)[f"{CODEX_HOME}/auth.json"])
    real = login.auth_json()
    assert stand_in.keys() == real.keys()
    assert stand_in["tokens"].keys() == real["tokens"].keys()  # type: ignore[attr-defined]
    assert stand_in["auth_mode"] == "chatgpt"
    assert stand_in["tokens"]["account_id"] == login.account
    for name in ("access_token", "id_token"):
        token, original = stand_in["tokens"][name], claims_of(getattr(login, name))
        assert claims_of(token)["exp"] == original["exp"]
        assert claims_of(token)[ACCOUNT] == original[ACCOUNT]
        assert token.endswith(".placeholder")
    assert "session_id" not in claims_of(stand_in["tokens"]["access_token"])
    assert claims_of(stand_in["tokens"]["id_token"])["email"] == "someone@example.com"
    # An old date would make the program renew at its first start what it cannot renew.
    assert stand_in["last_refresh"] > "2026-01-02T03:04:05Z"
    assert all(file.mode == 0o600 for file in made.files)


def test_codex_starts_without_a_question_and_trusts_the_bottles_ca(tmp_path: Path, login: CodexLogin) -> None:
    made = plan(tmp_path, body="You port things.")
    assert made.argv == ("codex", "--dangerously-bypass-approvals-and-sandbox")
    assert made.program == "codex"
    assert made.guest_env == {"CODEX_HOME": CODEX_HOME, "CODEX_CA_CERTIFICATE": AGENT_CA_BUNDLE}
    config = contents(made)[f"{CODEX_HOME}/config.toml"]
    assert f'[projects."{AGENT_WORKSPACE}"]\ntrust_level = "trusted"' in config
    assert "check_for_update_on_startup = false" in config
    assert contents(made)[f"{CODEX_HOME}/AGENTS.md"] == f"You port things.\n\n{POINTER}\n"


def test_codexs_task_is_never_in_argv(tmp_path: Path, login: CodexLogin) -> None:
    made = plan(tmp_path, headless=True, prompt="the secret task")
    assert made.argv[:2] == ("/bin/sh", "-c")
    assert not any("secret task" in element for element in made.argv)
    assert "the secret task\n" in contents(made).values()
    with pytest.raises(UsageError, match="--prompt"):
        plan(tmp_path, headless=True)


def test_an_api_key_is_named_and_never_held(tmp_path: Path) -> None:
    made = plan(tmp_path, forward=False, api_key="MY_KEY", env={"MY_KEY": "sk-real"})
    (route,) = made.egress_routes
    assert (route.host, route.path_allowlist) == ("api.openai.com", ("/v1/responses",))
    assert route.auth == RouteAuth(scheme="Bearer", token_ref="MY_KEY", placeholders=(PLACEHOLDER_KEY,))
    stand_in = json.loads(contents(made)[f"{CODEX_HOME}/auth.json"])
    assert stand_in == {"auth_mode": "apikey", "OPENAI_API_KEY": PLACEHOLDER_KEY}
    assert "sk-real" not in repr(made) + "".join(contents(made).values())
    assert made.provisioned_env == {}


def test_without_a_credential_nothing_is_opened(tmp_path: Path) -> None:
    made = plan(tmp_path, forward=False)
    assert made.egress_routes == ()
    assert f"{CODEX_HOME}/auth.json" not in contents(made)


def test_one_kind_of_credential_only() -> None:
    assert check_provider_keys("codex", {"api_key"}) == []
    both = {"api_key", "forward_host_credentials"}
    assert check_provider_keys("codex", both) == [
        ("forward_host_credentials", "stands beside api_key; keep one of them")
    ]


def test_a_preview_reads_nothing_of_the_host(tmp_path: Path) -> None:
    made = plan(tmp_path, preview=True)
    assert [route.host for route in made.egress_routes] == ["chatgpt.com"]
    assert made.provisioned_env == {}


def test_codex_home_says_where_the_login_is(tmp_path: Path) -> None:
    elsewhere = CodexLogin()
    elsewhere.write(tmp_path / "elsewhere")
    made = plan(tmp_path, env={"CODEX_HOME": str(tmp_path / "elsewhere")})
    assert made.provisioned_env == {CODEX_HOST_CREDENTIAL_TOKEN_REF: elsewhere.access_token}


def test_the_operators_route_can_only_narrow(tmp_path: Path, login: CodexLogin) -> None:
    from bot_bottle.manifest.model import ManifestEgress, ManifestRoute  # noqa: PLC0415

    route = ManifestRoute(host="chatgpt.com", path_allowlist=("/backend-api/codex/responses",))
    bottle = ManifestBottle(
        name="b",
        path=tmp_path / "b.md",
        agent_provider=ManifestAgentProvider(template="codex", forward_host_credentials=True),
        egress=ManifestEgress(routes=(route,)),
    )
    (merged,) = egress_routes_for_bottle(bottle, plan(tmp_path).egress_routes)
    assert merged.path_allowlist == ("/backend-api/codex/responses",)
    assert merged.methods == ("GET", "POST")


def refusal(home: Path) -> str:
    """Give what is said of the login in ``home``, and be sure that no exception carries more."""
    with pytest.raises(UsageError) as caught:
        plan(home)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in repr(vars(error)) + repr(error.args)
        assert not isinstance(error, ValueError)
        error = error.__context__
    assert caught.value.exit_code == 2
    assert "codex login" in str(caught.value)
    return str(caught.value)


def rewrite(home: Path, change: dict[str, object], tokens: dict[str, object] | None = None) -> None:
    path = home / ".codex" / "auth.json"
    data = json.loads(path.read_text())
    data["tokens"].update(tokens or {})
    path.write_text(json.dumps({**data, **change}))


def test_no_login(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}/.codex/auth.json does not exist")


def test_a_login_that_is_no_readable_file(tmp_path: Path) -> None:
    (tmp_path / ".codex" / "auth.json").mkdir(parents=True)
    assert "rm -f" in refusal(tmp_path)
    (tmp_path / ".codex" / "auth.json").rmdir()
    os.mkfifo(tmp_path / ".codex" / "auth.json")
    assert "is no file of a login" in refusal(tmp_path)


def test_a_login_that_anybody_may_have_put_there(tmp_path: Path, login: CodexLogin) -> None:
    path = login.write(tmp_path / ".codex")
    for mode in (0o602, 0o620, 0o666):
        path.chmod(mode)
        assert "can be written by other users" in refusal(tmp_path)
    path.chmod(0o644)
    assert plan(tmp_path).provisioned_env


@pytest.mark.parametrize(
    "change",
    [
        {"auth_mode": "apikey", "OPENAI_API_KEY": "sk-secret", "tokens": None},
        {"auth_mode": None, "OPENAI_API_KEY": "sk-secret", "tokens": None},
    ],
)
def test_an_api_key_on_the_host(tmp_path: Path, login: CodexLogin, change: dict[str, object]) -> None:
    rewrite(tmp_path, change)
    said = refusal(tmp_path)
    assert "holds an API key" in said
    assert "api_key: OPENAI_API_KEY" in said


def test_a_login_of_another_kind(tmp_path: Path, login: CodexLogin) -> None:
    rewrite(tmp_path, {"auth_mode": "agentIdentity", "agent_identity": "secret"})
    assert "of a kind that cannot be forwarded" in refusal(tmp_path)


def test_a_login_that_is_over_or_nearly(tmp_path: Path) -> None:
    for lasts in (-5, 0, 200):
        CodexLogin(lasts=lasts).write(tmp_path / ".codex")
        assert "UTC only; run: codex login" in refusal(tmp_path)
    CodexLogin(lasts=3600).write(tmp_path / ".codex")
    assert plan(tmp_path).provisioned_env


@pytest.mark.parametrize("content", [b"", b"{", b'"secret"', b"[1]", b"\xff\xfe secret", b"[" * 100_000])
def test_a_file_that_is_no_json_object(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "auth.json").write_bytes(content)
    assert "is not as Codex writes it: it is no JSON object" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ({"access_token": "secret"}, "a token is missing or is no JWT"),
        ({"access_token": 7}, "a token is missing or is no JWT"),
        ({"access_token": f"a.{'!' * 8}.c"}, "a token is missing or is no JWT"),
        ({"access_token": "a.b\u00e9.c"}, "a token is missing or is no JWT"),
        ({"id_token": ""}, "a token is missing or is no JWT"),
        ({"access_token": jwt({"sub": "x"})}, "does not say when it ends"),
        ({"access_token": jwt({"exp": True})}, "does not say when it ends"),
        ({"access_token": jwt({"exp": 10**30})}, "does not say when it ends"),
        ({"access_token": jwt({"exp": "4102444800"})}, "does not say when it ends"),
    ],
)
def test_tokens_that_are_none(
    tmp_path: Path, login: CodexLogin, tokens: dict[str, object], said: str
) -> None:
    rewrite(tmp_path, {}, tokens)
    assert said in refusal(tmp_path)


def test_a_credential_among_the_claims_stays_outside(tmp_path: Path, login: CodexLogin) -> None:
    # No issuer does this; should one begin to, the launch ends rather than the secret going in.
    rewrite(tmp_path, {}, {"id_token": jwt({"email": login.refresh_token, "exp": login.ends})})
    assert "repeats a credential" in refusal(tmp_path)


def test_the_account_is_found_in_the_claims(tmp_path: Path, login: CodexLogin) -> None:
    rewrite(tmp_path, {}, {"account_id": None})
    assert login.account in contents(plan(tmp_path))[f"{CODEX_HOME}/auth.json"]
    bare = jwt({"exp": login.ends})
    rewrite(tmp_path, {}, {"account_id": None, "id_token": bare, "access_token": bare})
    assert "it names no account" in refusal(tmp_path)


_JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_KEYS = st.sampled_from(["auth_mode", "OPENAI_API_KEY", "tokens", "last_refresh"])
_TOKEN_KEYS = st.sampled_from(["id_token", "access_token", "refresh_token", "account_id"])
_CLAIMS: st.SearchStrategy[dict[str, object]] = st.dictionaries(
    st.sampled_from(["exp", "email", "sub", "aud", ACCOUNT, "other"]), _JSON | st.integers(0, 1 << 45)
)
_TOKENS: st.SearchStrategy[object] = st.builds(jwt, _CLAIMS)


@given(
    over=st.dictionaries(_KEYS, _JSON, max_size=2),
    tokens=st.dictionaries(_TOKEN_KEYS, _JSON | _TOKENS, max_size=3),
)
def test_whatever_the_file_holds_it_is_a_login_or_one_sentence(
    over: dict[str, object], tokens: dict[str, object]
) -> None:
    login = CodexLogin()
    data = login.auth_json()
    held = data["tokens"]
    assert isinstance(held, dict)
    data = {**data, "tokens": {**held, **tokens}, **over}
    said, made = "", b""
    try:
        made = login_from(json.dumps(data).encode(), Path("/h/auth.json"), 1_700_000_000.0).stand_in
    except UsageError as error:
        said = "".join(traceback.format_exception(error))
    assert bool(said) is not bool(made)
    assert login.found_in(said.encode() + made) == []
    if said:
        assert "/h/auth.json " in said
        assert "codex login" in said
    else:
        assert json.loads(made)["auth_mode"] == "chatgpt"


def run_as_codex(made: AgentProvisionPlan, home: Path) -> tuple[list[str], str]:
    """Run the plan's argv with a stand-in program, with the bottle's home moved to ``home``."""
    program = home / "bin" / "codex"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nprintf "stdin: "; cat\n')
    program.chmod(0o755)
    for file in made.files:
        path = home / file.path.removeprefix(f"{AGENT_HOME}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    argv = [element.replace(AGENT_HOME, str(home)) for element in made.argv]
    env = {"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(home)}
    done = subprocess.run(argv, env=env, capture_output=True, check=True, input=b"", timeout=20)
    arguments, _, stdin = done.stdout.decode().partition("stdin: ")
    return arguments.split(), stdin


_ALL = "--dangerously-bypass-approvals-and-sandbox"


def test_codex_gets_its_task_on_standard_input(tmp_path: Path, login: CodexLogin) -> None:
    made = plan(tmp_path, headless=True, prompt='say "$HOME" `id`')
    assert run_as_codex(made, tmp_path) == (
        ["exec", "--skip-git-repo-check", _ALL, "-"],
        'say "$HOME" `id`\n',
    )


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_codex_goes_on_only_with_a_session_that_has_begun(
    tmp_path: Path, login: CodexLogin, *, begun: bool, headless: bool
) -> None:
    made = plan(tmp_path, resume=True, headless=headless, prompt="go on")
    assert f"{CODEX_HOME}/config.toml" not in contents(made)
    assert f"{CODEX_HOME}/auth.json" in contents(made)
    if begun:
        folder = tmp_path / ".codex" / "sessions" / "2026" / "01" / "02"
        folder.mkdir(parents=True)
        (folder / "rollout-1.jsonl").write_text("{}")
    argv, stdin = run_as_codex(made, tmp_path)
    more = (["resume", "--last"] if headless else ["resume", "--last", "--include-non-interactive"]) * begun
    base = ["exec", "--skip-git-repo-check", _ALL] if headless else [_ALL]
    assert argv == [*base, *more, *(["-"] if headless else [])]
    assert stdin == ("go on\n" if headless else "")
