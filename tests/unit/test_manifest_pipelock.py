"""What a bottle says of content: the keys of a route, ``guard``, and how both are inherited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bot_bottle.backend.prepare import marked_outside, second_hop
from bot_bottle.egress.routes import EgressRoute, egress_manifest_routes, egress_routes_for_bottle
from bot_bottle.egress.routes import pipelock_effective_tls_passthrough as passthrough
from bot_bottle.errors import ManifestError, UnavailableError, UsageError
from bot_bottle.manifest.model import Manifest
from bot_bottle.operator_config import OperatorConfig
from bot_bottle.preflight import route_text
from bot_bottle.sidecar.config import Pin

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.manifest.model import ManifestBottle


def bottle(tmp_path: Path, **files: str) -> ManifestBottle:
    """Write bottles by name, the last of them the agent's; give that one."""
    for folder in ("bottles", "agents"):
        (tmp_path / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    tmp_path.chmod(0o700)
    for name, text in files.items():
        path = tmp_path / "bottles" / f"{name}.md"
        path.write_text(f"---\nagent_provider: {{template: command, argv: [sh]}}\n{text}---\n")
        path.chmod(0o600)
    agent = tmp_path / "agents" / "one.md"
    agent.write_text(f"---\nbottle: {name}\n---\n")
    agent.chmod(0o600)
    return Manifest.resolve(tmp_path, home=tmp_path).bottle_for("one")


def route(pipelock: str, key: str = "routes") -> str:
    return f"egress:\n  {key}:\n    - host: api.test\n      pipelock: {pipelock}\n"


def test_every_key_reaches_the_route_and_the_sidecar(tmp_path: Path) -> None:
    text = route("{detectors: [financial], on_match: ask, on_opaque: deny, max_body: 4096, responses: block}")
    (made,) = egress_manifest_routes(bottle(tmp_path, one=text))
    assert (made.detectors, made.on_match, made.on_opaque, made.max_body) == (
        ("financial",),
        "ask",
        "deny",
        4096,
    )
    assert made.responses == made.answers == "block"
    assert EgressRoute.from_wire(made.to_wire()) == made
    (plain,) = egress_manifest_routes(bottle(tmp_path, one=route("{}")))
    assert plain.detectors == ("credential", "financial", "opaque_token")
    assert (plain.on_match, plain.on_opaque, plain.max_body) == ("block", None, None)
    assert plain.answers == "warn"
    (taken_out,) = egress_manifest_routes(bottle(tmp_path, one=route("{on_match: redact}")))
    assert EgressRoute.from_wire(taken_out.to_wire()).on_match == taken_out.on_match == "redact"
    (off,) = egress_manifest_routes(bottle(tmp_path, one=route("{tls_passthrough: true}")))
    assert off.answers == "off"


@pytest.mark.parametrize(
    ("pipelock", "words"),
    [
        ("{on_match: shrug}", "write block, redact or ask"),
        ("{detectors: [jwt]}", "write credential, financial, opaque_token"),
        ("{detectors: [own_secret]}", "own_secret is always on"),
        ("{on_opaque: maybe}", "write deny or allow"),
        ("{responses: loud}", "write off, warn or block"),
        ("{max_body: 0}", "out of range"),
        ("{max_body: lots}", "max_body"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(tmp_path: Path, pipelock: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        bottle(tmp_path, one=route(pipelock))


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ("{}", "{detectors: [credential]}"),
        ("{on_opaque: deny}", "{}"),
        ("{}", "{on_opaque: allow}"),
        ("{max_body: 10}", "{max_body: 11}"),
        ("{max_body: 10}", "{}"),
    ],
)
def test_an_added_route_lets_no_more_be_said(tmp_path: Path, narrow: str, wide: str) -> None:
    files = {"base": route(narrow), "child": "extends: base\n" + route(wide, "add_routes")}
    with pytest.raises(ManifestError, match=r"opens more of api.test.*pipelock\."):
        bottle(tmp_path, **files)
    files = {"base": route(wide), "child": "extends: base\n" + route(narrow, "add_routes")}
    assert len(bottle(tmp_path, **files).egress.routes) == 1


def test_guards_add_up(tmp_path: Path) -> None:
    made = bottle(tmp_path, base="guard: [ONE, TWO]\n", child="extends: base\nguard: [TWO, THREE]\n")
    assert made.guard == ("ONE", "TWO", "THREE")
    assert made.sources["guard.TWO"].path.name == "child.md"
    with pytest.raises(ManifestError, match="written twice"):
        bottle(tmp_path, one="guard: [ONE, ONE]\n")
    with pytest.raises(ManifestError, match="guard"):
        bottle(tmp_path, one="guard: [not a name]\n")


def test_passthrough_is_read_from_the_merged_routes(tmp_path: Path) -> None:
    own = bottle(tmp_path, one=route("{max_body: 10}"))
    merged = egress_routes_for_bottle(own, [EgressRoute(host="api.test", tls_passthrough=True)])
    assert passthrough(merged) == ("api.test",)
    assert merged[0].max_body == 10, "the operator's bound stays"


def test_the_preflight_says_it_by_name(tmp_path: Path) -> None:
    (made,) = egress_manifest_routes(
        bottle(tmp_path, one=route("{detectors: [financial], on_opaque: allow, max_body: 10}"))
    )
    assert route_text(made) == (
        "api.test [content rules: financial] [unreadable content: allow] [bodies up to 10 bytes]"
    )


def test_what_guard_names_is_looked_up_and_goes_to_the_sidecar_alone(tmp_path: Path) -> None:
    made = bottle(tmp_path, one="env: {INSIDE: a-value-inside}\nguard: [INSIDE, OUTSIDE]\n")
    with pytest.raises(UsageError, match="OUTSIDE"):
        marked_outside(made, {})
    assert {
        name: value.reveal() for name, value in marked_outside(made, {"OUTSIDE": "x-outside"}).items()
    } == {"OUTSIDE": "x-outside"}


def _second_hop(tmp_path: Path, text: str, config: OperatorConfig | None = None) -> str:
    made = bottle(tmp_path, one=text)
    return second_hop(made, config or OperatorConfig())


def test_the_external_program_is_found_or_its_absence_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    external = route("{}") + "pipelock: {engine: external}\n"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _second_hop(tmp_path, route("{}")) == ""
    with pytest.raises(UnavailableError, match="is not on PATH; install it"):
        _second_hop(tmp_path, external)
    named = OperatorConfig(pipelock=str(tmp_path / "elsewhere"))
    with pytest.raises(UnavailableError, match=r"is not at .*elsewhere \(config.toml\)"):
        _second_hop(tmp_path, external, named)
    for name in ("pipelock", "elsewhere"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert _second_hop(tmp_path, external) == str(tmp_path / "pipelock")
    assert _second_hop(tmp_path, external, named) == str(tmp_path / "elsewhere")
    pinned = OperatorConfig(pins={"a.example.com": Pin(address="10.0.0.1", port=None)})
    with pytest.raises(UsageError, match=r"config\.toml has pins"):
        _second_hop(tmp_path, external, pinned)
    with pytest.raises(ManifestError, match="write builtin or external"):
        _second_hop(tmp_path, route("{}") + "pipelock: {engine: other}\n")
