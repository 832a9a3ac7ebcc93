"""The two images of a bottle, found by their content or built: the agent's and the sidecar's."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from bot_bottle.backend.base import Prepared
from bot_bottle.backend.docker.agent_image import agent_source, ensure_agent_image
from bot_bottle.backend.docker.engine import engine_errors
from bot_bottle.backend.docker.progress import Progress
from bot_bottle.backend.docker.sidecar_image import ensure_sidecar_image
from bot_bottle.files import make_private_dir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bot_bottle.backend.docker.builds import BuiltImage
    from bot_bottle.backend.docker.engine import Engine
    from bot_bottle.backend.plan import BottlePlan
    from bot_bottle.manifest.model import ManifestBottle
    from bot_bottle.operator_config import DockerConfig


def sidecar_image(engine: Engine, config: DockerConfig, progress: Progress) -> str:
    """Give the id of this installation's sidecar image; raises as :func:`ensure_sidecar_image`."""
    return ensure_sidecar_image(engine, config, progress).id


def agent_image(engine: Engine, plan: BottlePlan, config: DockerConfig, progress: Progress) -> str:
    """Give the id of the image of a plan's agent; raises as :func:`ensure_agent_image`."""
    return ensure_agent_image(engine, agent_source(plan.bottle, plan.state_dir), config, progress).id


def save_agent_image(
    engine: Engine,
    bottle: ManifestBottle,
    state_dir: Path | None,
    config: DockerConfig,
    folder: Path,
    *,
    refresh: bool = False,
) -> Path:
    """Build an agent's image and save it in ``folder`` under its id; see ``BottleBackend.save_image``."""
    progress = Progress(sys.stderr)
    source = agent_source(bottle, state_dir)
    try:
        image = ensure_agent_image(engine, source, config, progress, refresh=refresh)
        archive = folder / f"{image.id.rpartition(':')[2]}.tar"
        if archive.exists():
            return archive
        progress.step(f"saving {image.tag}")
        make_private_dir(folder)
        unfinished = folder / f".{archive.name}.{os.getpid()}.partial"
        try:
            with engine_errors(f"{image.tag} could not be saved"), unfinished.open("xb") as file:
                for piece in engine.api.get_image(image.tag):
                    file.write(piece)
            unfinished.replace(archive)
        finally:
            unfinished.unlink(missing_ok=True)
        return archive
    finally:
        progress.close()


def build_ahead(
    engine: Engine, bottles: Sequence[ManifestBottle], config: DockerConfig, *, refresh: bool = False
) -> tuple[Prepared, ...]:
    """Build every image that launches of ``bottles`` need, with progress on stderr; see ``BottleBackend``."""
    progress = Progress(sys.stderr)
    found: dict[str, Prepared] = {}
    # Wrong Dockerfiles are told before anything takes its time.
    sources = {bottle.name: agent_source(bottle) for bottle in bottles}
    try:
        sidecar = ensure_sidecar_image(engine, config, progress, refresh=refresh)
        ready = [_prepared("the sidecar of every bottle", sidecar)]
        for name, source in sources.items():
            before = next((one for one in found.values() if one.what == source.where), None)
            if before is None:
                image = ensure_agent_image(engine, source, config, progress, refresh=refresh)
                before = _prepared(source.where, image)
            found[before.name] = replace(before, bottles=(*before.bottles, name))
    finally:
        progress.close()
    return (*ready, *found.values())


def _prepared(what: str, image: BuiltImage) -> Prepared:
    return Prepared(what=what, name=image.tag, size=image.size, fresh=image.fresh)
