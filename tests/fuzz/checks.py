"""What all targets use."""

from __future__ import annotations


def require(condition: object, what: str) -> None:
    """Fail where ``condition`` does not hold, also under ``python -O``."""
    if not condition:
        raise RuntimeError(what)


def cut(data: bytes, step: int) -> list[bytes]:
    """Cut ``data`` into pieces of ``step`` bytes."""
    return [data[index : index + step] for index in range(0, len(data), step)]
