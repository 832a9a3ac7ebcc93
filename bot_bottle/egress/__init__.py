"""Egress: routes and policy (pure), credential injection, the per-bottle CA, and the data plane."""
