"""Bottles in microVMs, made by the smolmachines engine on this host."""
