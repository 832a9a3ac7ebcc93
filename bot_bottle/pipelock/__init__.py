"""Content scanning: one engine, two profiles, everything decided before a byte is passed on.

:mod:`~bot_bottle.pipelock.scanner` judges one piece of content, :mod:`~bot_bottle.pipelock.stream` a body as
it flows, :mod:`~bot_bottle.pipelock.session` what one client sends in pieces,
:mod:`~bot_bottle.pipelock.host_labels` a host name before it is looked up.
Importing the package loads no native library; the engine is loaded by :mod:`~bot_bottle.pipelock.loader`.
"""
