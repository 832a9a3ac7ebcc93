"""What every backend needs alike: the CA's place, the agent's network variables, the sidecar's config."""

from __future__ import annotations

import hashlib
import ssl
import sys
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.backend.client_env import (
    AGENT_CA_BUNDLE,
    AGENT_CA_DIR,
    AGENT_CA_PATH,
    AGENT_JAVA_TRUST,
    client_env,
    java_truststore,
)
from bot_bottle.errors import LaunchError
from bot_bottle.files import write_atomic
from bot_bottle.git_gate.remote import GateConfig
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import SecondHopSettings, SidecarConfig
from bot_bottle.sidecar.listeners import PROXY_PORT

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.backend.plan import BottlePlan
    from bot_bottle.sidecar.config import Interception
    from bot_bottle.supervise.record import Past

__all__ = ["AGENT_CA_BUNDLE", "AGENT_CA_DIR", "AGENT_CA_PATH", "AGENT_JAVA_TRUST", "java_truststore"]

#: Where the sidecar is for a bottle that shares this host's kernel: on its own loopback.
LOOPBACK = "127.0.0.1"

_TRUST_DIR = "trust"


def network_env(sidecar_address: str = LOOPBACK) -> dict[str, str]:
    """Give the variables that lead ordinary clients to the sidecar's proxy and let them trust it."""
    return dict(client_env(sidecar_address, PROXY_PORT))


def trust_dir(state_dir: Path) -> Path:
    """Give the host folder that a backend shows inside the bottle at :data:`AGENT_CA_DIR`."""
    return state_dir / _TRUST_DIR


def write_trust(state_dir: Path, ca_pem: str) -> Path:
    """Write the bottle's CA certificate (never a key) where the bottle will see it; gives the folder.

    It is written in every form that a client may want, and anew at every launch, as the CA is made.
    """
    folder = trust_dir(state_dir)
    folder.mkdir(mode=0o755, exist_ok=True)
    folder.chmod(0o755)
    pem = ca_pem.encode()
    for guest_path, data in (
        (AGENT_CA_PATH, pem),
        (AGENT_CA_BUNDLE, pem),
        (AGENT_JAVA_TRUST, java_truststore(ca_pem)),
    ):
        write_atomic(folder / guest_path.rpartition("/")[2], data, mode=0o644)
    return folder


def select_ca_cert(plan: BottlePlan) -> tuple[Path, str]:
    """Give the host path of the CA certificate the agent trusts, and a label for messages."""
    return trust_dir(plan.state_dir) / AGENT_CA_PATH.rpartition("/")[2], "egress"


def log_ca_fingerprint(cert: Path, label: str) -> str:
    """Print the CA's SHA-256 fingerprint once to stderr, so that the operator can compare; gives it."""
    der = ssl.PEM_cert_to_DER_cert(cert.read_text("ascii"))
    fingerprint = hashlib.sha256(der).hexdigest()
    print(f"bot-bottle: {label} CA SHA-256 {fingerprint}", file=sys.stderr)
    return fingerprint


def sidecar_config(plan: BottlePlan, interception: Interception | None = None) -> SidecarConfig:
    """Derive what the sidecar is told from the plan; ``interception`` is for a bottle that is a machine."""
    return SidecarConfig(
        identity=plan.identity,
        routes=plan.routes,
        audit_path=str(plan.audit_path),
        secrets=plan.secrets,
        pins=plan.pins,
        upstream_ca_pem=plan.upstream_ca_pem,
        upstream_proxy=plan.upstream_proxy,
        interception=interception,
        git=_gate_config(plan),
        marked=marked_values(plan),
        cache=str(paths.cache_dir()),
        supervise=_past(plan),
        second_hop=SecondHopSettings(program=plan.second_hop, folder=str(plan.state_dir / "pipelock"))
        if plan.second_hop
        else None,
    )


def marked_values(plan: BottlePlan) -> dict[str, Secret]:
    """Give what the bottle's ``guard`` names: values of its environment, or of the operator's alone."""
    inside = {name: plan.guest_env[name] for name in plan.bottle.guard if name in plan.bottle.env}
    return {**plan.marked, **{name: Secret(value) for name, value in inside.items()}}


def _gate_config(plan: BottlePlan) -> GateConfig | None:
    """Give the git gate's part; its folder stands beside what the bottle sees of its state, not in it."""
    if not plan.git_remotes:
        return None
    return GateConfig(remotes=plan.git_remotes, folder=str(plan.state_dir / "git-gate"))


def _past(plan: BottlePlan) -> Past | None:
    """Give what was asked before, where the bottle may ask; raises ``LaunchError`` for an unreadable log."""
    if not plan.bottle.supervise:
        return None
    from bot_bottle.supervise.record import read_past  # noqa: PLC0415 - for bottles that may ask

    try:
        return read_past(plan.audit_path)
    except OSError as error:
        raise LaunchError(f"{plan.audit_path}: cannot be read: {error.strerror or error}") from error
