"""A kernel that refuses every byte of a file, as on a full disk, without filling one."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What the kernel says then; on a disk that is really full it is "No space left on device".
WORDS = "File too large"


@contextmanager
def no_room() -> Iterator[None]:
    """Let no file of this process grow while the body runs; folders and empty files can still be made."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
