"""The Dockerfile of each provider, ``TEMPLATE.Dockerfile`` beside this module: what its image holds.

Each has ``ARG BASE_IMAGE`` with a default, pins its program's version in an ``ARG``, and installs only what
the base lacks. The account, the home and the mount points are added by the backend.
"""

from __future__ import annotations

from pathlib import Path


def provider_dockerfile(template: str) -> Path:
    """Give the path of a template's own Dockerfile."""
    return Path(__file__).with_name(f"{template}.Dockerfile")
