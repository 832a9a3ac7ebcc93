"""Every failure the operator is meant to read: one sentence that says what to do, and an exit code.

Exit codes: 2 for bad input (arguments, manifest, config), 3 for a machine that cannot do what was asked,
4 for a launch that failed after it was accepted. An agent's own exit code is passed through unchanged.
"""

from __future__ import annotations


class BotBottleError(Exception):
    """Base of all expected failures; ``str(error)`` is printed to stderr as it is."""

    exit_code = 1


class UsageError(BotBottleError):
    """The operator's input is wrong; nothing was written and nothing was started."""

    exit_code = 2


class ManifestError(UsageError):
    """A manifest, routes file or config file is wrong; the sentence names file, line and key."""


class UnavailableError(BotBottleError):
    """This machine cannot do what was asked; the sentence is the one ``doctor`` prints."""

    exit_code = 3


class LaunchError(BotBottleError):
    """A launch was accepted but could not be completed; everything it had made is gone again."""

    exit_code = 4


class AlreadyRunningError(LaunchError):
    """Another launcher holds the bottle."""
