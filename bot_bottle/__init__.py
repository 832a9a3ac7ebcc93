"""Run any coding agent unattended, as if it might be compromised, and lose nothing when it is."""

__version__ = "0.1.0"
