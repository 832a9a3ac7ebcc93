"""The git gate: the only git remote a bottle sees. It scans every push and holds the upstream's credential.

Pure: :mod:`~bot_bottle.git_gate.pktline`, :mod:`~bot_bottle.git_gate.commands`,
:mod:`~bot_bottle.git_gate.policy`, :mod:`~bot_bottle.git_gate.spellings`,
:mod:`~bot_bottle.git_gate.report`. Around them: :mod:`~bot_bottle.git_gate.mirror` (the upstream),
:mod:`~bot_bottle.git_gate.push` and :mod:`~bot_bottle.git_gate.service` (smart HTTP).
"""
