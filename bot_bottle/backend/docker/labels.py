"""What everything of ours on an engine bears, so that nothing else is ever touched.

An engine may be shared by several users and several installations; the installation's id tells whose a
container, volume or image is.
"""

from __future__ import annotations

from typing import Literal

from bot_bottle.installation import has_installation, installation_id

__all__ = ["has_installation", "installation_id", "label_filter", "make_labels"]

IDENTITY = "bot-bottle.identity"
ROLE = "bot-bottle.role"
INSTALLATION = "bot-bottle.installation"

Role = Literal["agent", "sidecar", "doorkeeper", "home", "audit", "image", "probe"]


def make_labels(role: Role, identity: str = "") -> dict[str, str]:
    """Give the labels of one thing of ours; ``identity`` is empty for what several bottles share."""
    labels = {INSTALLATION: installation_id(), ROLE: role}
    if identity:
        labels[IDENTITY] = identity
    return labels


def label_filter(role: Role | None = None, identity: str = "") -> dict[str, list[str]]:
    """Give the engine's filter for things of this installation, optionally of one role or identity."""
    wanted = [f"{INSTALLATION}={installation_id()}"]
    if role is not None:
        wanted.append(f"{ROLE}={role}")
    if identity:
        wanted.append(f"{IDENTITY}={identity}")
    return {"label": wanted}
