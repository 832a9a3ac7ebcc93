"""Backends: what isolates a bottle. The shared contract is in :mod:`bot_bottle.backend.base`."""
