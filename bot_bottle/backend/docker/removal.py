"""Take containers and volumes of ours away for good, however far they got and whoever else is at it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import APIClient

#: How long an engine may take to remove what has ended, in seconds.
_SECONDS = 30
#: How long a program that is told to end may take, in seconds.
_END_SECONDS = 5
_PAUSE_SECONDS = 0.02


def remove_container(api: APIClient, container: str) -> None:
    """Kill and remove a container with its unnamed volumes, and wait until it is gone; gone is no error.

    Raises the SDK's errors.
    """
    from docker import errors  # noqa: PLC0415 - only this backend pays for it

    deadline = time.monotonic() + _END_SECONDS
    while True:
        try:
            api.remove_container(container, v=True, force=True)
        except errors.NotFound:
            return
        except errors.APIError as error:
            # 409: the engine itself is removing it, because it ended (AutoRemove).
            if error.status_code == 409:
                await_removal(api, container)
                return
            # 500: Podman's word for that, and for a network that one which is just going away still shares.
            if error.status_code != 500 or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def end_container(api: APIClient, container: str) -> None:
    """Have a container's program end by itself, if it does, and remove it. Raises the SDK's errors."""
    import requests  # noqa: PLC0415
    from docker import errors  # noqa: PLC0415

    try:
        api.kill(container, "TERM")
        api.wait(container, timeout=_END_SECONDS)
    except errors.NotFound:
        return
    except (errors.APIError, requests.RequestException):
        pass  # it never ran, or does not end
    remove_container(api, container)


def await_removal(api: APIClient, container: str, seconds: int = _SECONDS) -> None:
    """Wait until the engine has removed a container that ends by itself; kill it after ``seconds``."""
    import requests  # noqa: PLC0415
    from docker import errors  # noqa: PLC0415

    try:
        api.wait(container, timeout=seconds, condition="removed")
    except errors.NotFound:
        return
    except (errors.APIError, requests.RequestException):
        with contextlib.suppress(errors.NotFound):
            api.remove_container(container, v=True, force=True)


def remove_volume(api: APIClient, name: str) -> None:
    """Remove a volume; gone is no error. Raises the SDK's errors, after a while also where it is in use."""
    from docker import errors  # noqa: PLC0415

    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            api.remove_volume(name)
        except errors.NotFound:
            return
        except errors.APIError as error:
            # 409: a container that is just going away still refers to it.
            if error.status_code != 409 or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
