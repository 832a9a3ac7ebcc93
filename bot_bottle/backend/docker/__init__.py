"""Bottles in containers, on an engine that the operator names."""
