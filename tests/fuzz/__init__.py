"""Fuzzing of what a bottle and its servers may send: targets that plain tests run too, and their seeds."""
