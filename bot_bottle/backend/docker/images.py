"""The two images of a bottle, found by their content or built: the agent's and the sidecar's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.backend.docker.agent_image import agent_source, ensure_agent_image
from bot_bottle.backend.docker.sidecar_image import ensure_sidecar_image

if TYPE_CHECKING:
    from bot_bottle.backend.base import BottlePlan
    from bot_bottle.backend.docker.engine import Engine
    from bot_bottle.backend.docker.progress import Progress
    from bot_bottle.operator_config import DockerConfig


def sidecar_image(engine: Engine, config: DockerConfig, progress: Progress) -> str:
    """Give the id of this installation's sidecar image; raises as :func:`ensure_sidecar_image`."""
    return ensure_sidecar_image(engine, config, progress).id


def agent_image(engine: Engine, plan: BottlePlan, config: DockerConfig, progress: Progress) -> str:
    """Give the id of the image of a plan's agent; raises as :func:`ensure_agent_image`."""
    return ensure_agent_image(engine, agent_source(plan.bottle, plan.state_dir), config, progress).id
