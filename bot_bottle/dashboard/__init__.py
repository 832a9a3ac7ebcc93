"""The operator's screen: what all bottles do, what agents ask, and the keys that answer."""
