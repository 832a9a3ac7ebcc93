"""What `bot-bottle demo` shows: the main job, with scripted upstreams and a scripted agent."""

from __future__ import annotations


def run() -> int:
    """Run the demo on this machine alone; gives 0 only if every scene went as it should.

    Raises ``UnavailableError`` with doctor's sentence where no backend works here, ``LaunchError`` where the
    bottle could not be brought up.
    """
    from bot_bottle.demo.stage import play  # noqa: PLC0415 - the demo's parts are heavy

    return play()
