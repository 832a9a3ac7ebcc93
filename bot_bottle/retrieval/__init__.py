"""What comes back out of a bottle: its work, read as data, checked, scanned, and handed over as a branch.

Nothing here runs a program in a folder the agent could write, opens a path through a link of its making, or
lets git see a configuration, hook, attribute file or reference to other objects that came from the bottle.
"""
