"""The Dockerfile of each provider, ``TEMPLATE.Dockerfile`` beside this module: what its image holds.

Each has ``ARG BASE_IMAGE`` with a default, pins its program's version in an ``ARG``, and installs only what
the base lacks. The account, the home and the mount points are added by the backend.
"""

from __future__ import annotations

from pathlib import Path

from bot_bottle.agent_provider.added import dockerfile_of


def provider_dockerfile(template: str) -> tuple[str, str]:
    """Give the text of a template's own Dockerfile, and what to call it.

    A provider that the operator added has it in its folder, or none: then it is the plain place for any
    command. Raises ``ManifestError`` for one that others could have written.
    """
    path = Path(__file__).with_name(f"{template}.Dockerfile")
    if path.exists():
        return path.read_text("utf-8"), f"the Dockerfile of {template}"
    added = dockerfile_of(template)
    if added is not None:
        return added, f"the Dockerfile of the provider {template}"
    plain = Path(__file__).with_name("command.Dockerfile")
    return plain.read_text("utf-8"), "the Dockerfile of command"
