"""Names that a bottle chose (a host, a server's name, a model), searched for guarded values before a record.

They come from a bottle's first packet on, when nothing else of what judges content is loaded yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.egress import content_denial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.decision import Deny
    from bot_bottle.pipelock.own_secrets import OwnSecrets
    from bot_bottle.secret import Secret


class ChosenNames:
    """Searches names for ``guarded`` values; what that takes is loaded for the first name."""

    __slots__ = ("_guarded", "_own")

    def __init__(self, guarded: Mapping[str, Secret]) -> None:
        self._guarded = guarded
        self._own: OwnSecrets | None = None

    def objection(self, names: tuple[str, ...]) -> Deny | None:
        """Say what speaks against the first of ``names`` that carries a guarded value.

        Where that cannot be told it speaks against them too.
        """
        from bot_bottle.pipelock.finding import Finding, Where  # noqa: PLC0415 - as below

        try:
            if self._own is None:
                from bot_bottle.pipelock.own_secrets import OwnSecrets  # noqa: PLC0415 - a native library

                self._own = OwnSecrets(self._guarded)
            for name in names:
                hit = self._own.search(name.encode("utf-8", "surrogateescape"))
                if hit is not None:
                    where = Where(place="host", layers=hit.layers)
                    found = Finding(kind="own_secret", rule=f"own-secret:{hit.name}", where=where)
                    return content_denial.host_denial(found, None)
        except Exception as error:  # noqa: BLE001 - fail closed: what cannot be judged is not written down
            return content_denial.unavailable(type(error).__name__)
        return None
