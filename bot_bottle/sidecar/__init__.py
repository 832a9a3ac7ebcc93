"""The trusted process beside one bottle: it hosts egress (later the git gate and supervise)."""
