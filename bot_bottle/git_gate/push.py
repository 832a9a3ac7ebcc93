"""A push, from its first line to its answer: refused, or accepted because the upstream accepted it.

The order is fixed: rules on names; the pack into quarantine; rules on what it changes; the scan of everything
that is new; the decision on record; the upstream; only then the mirror. Whatever fails on the way, the mirror
stays as it was, and it is never ahead of the upstream. Every push is all or nothing, with or without
``--atomic``. Signed pushes and push options are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from bot_bottle.decision import Deny
from bot_bottle.git_gate.commands import MAX_COMMANDS, CommandError, parse_commands
from bot_bottle.git_gate.early import early_way
from bot_bottle.git_gate.forward import forward
from bot_bottle.git_gate.git import GitError
from bot_bottle.git_gate.http import HttpError
from bot_bottle.git_gate.inspection import inspect
from bot_bottle.git_gate.mirror import BACKUP, FRESH_SECONDS, UpstreamError
from bot_bottle.git_gate.pktline import payload_length
from bot_bottle.git_gate.policy import Rules
from bot_bottle.git_gate.quarantine import Quarantine, TooLargeError
from bot_bottle.git_gate.report import denial_lines, finding_lines, one_line, progress, status
from bot_bottle.words import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from bot_bottle.audit import AuditLog, AuditValue
    from bot_bottle.git_gate.commands import Command, CommandList
    from bot_bottle.git_gate.forward import Outcome
    from bot_bottle.git_gate.http import Body, Response
    from bot_bottle.git_gate.mirror import Mirror
    from bot_bottle.git_gate.policy import Opening
    from bot_bottle.git_gate.scanning import ContentScanner

#: What the gate says it understands; deletion is offered so that its refusal can name the rule.
CAPABILITIES = "report-status delete-refs side-band-64k quiet atomic ofs-delta"
#: Pushes at work at a time, which bounds memory and disk; more wait.
MAX_PUSHES = 2
_PUSH_SECONDS = 3600.0
#: What comes before the pack: bytes in all, and how long it may take to come.
_MAX_LINES, _LINES_SECONDS = 2 * 1024 * 1024, 120.0
_KEEPALIVE_SECONDS = 5.0
_TYPE = "application/x-git-receive-pack-result"
#: How much of a refused push is still taken in, so that its answer is read; a multiple of what is allowed.
_DRAINED = 4


class RefusedError(Exception):
    """The push is refused; ``lines`` are for git's stderr, ``deny`` for the record."""

    def __init__(self, deny: Deny, *, lines: tuple[str, ...] = (), command: Command | None = None) -> None:
        super().__init__(deny.message)
        self.deny = deny
        self.lines = lines + denial_lines(deny)
        self.command = command


class Human(Protocol):
    """Who may open more than a remote's policy does."""

    def openings(self, remote: str) -> tuple[Opening, ...]:
        """Give what is open at this moment for the remote of that name."""
        ...

    def spend(self, name: str) -> bool:
        """Take a use of a counted opening; False where none is left or it cannot be put on record."""
        ...


class Pushes:
    """What all pushes of one gate share."""

    def __init__(
        self,
        *,
        audit: AuditLog,
        scanner: Callable[[], ContentScanner],
        human: Human | None = None,
    ) -> None:
        """``human`` is asked at each push what is open beside a remote's policy."""
        self.audit = audit
        self.human = human
        self.slots = asyncio.Semaphore(MAX_PUSHES)
        self._make_scanner = scanner
        self._scanner: ContentScanner | None = None
        self._warming: asyncio.Future[None] | None = None

    def warm(self) -> None:
        """Begin to make the scanner, so that the push that is about to come need not wait for it."""
        if self._scanner is None and self._warming is None:
            self._warming = asyncio.ensure_future(self._warm())

    async def _warm(self) -> None:
        with contextlib.suppress(Exception):  # the push itself hears of it
            await self.scanner()
        self._warming = None

    async def scanner(self) -> ContentScanner:
        """Give the scanner, made at the first push; raises what making it raises."""
        while self._scanner is None:
            make = self._make_scanner
            made = await asyncio.to_thread(make)
            if make is self._make_scanner:
                self._scanner = made
        return self._scanner

    def scan_with(self, scanner: Callable[[], ContentScanner]) -> None:
        """Make another scanner for pushes from now on."""
        self._make_scanner, self._scanner = scanner, None


class Push:
    """One push on one mirror."""

    def __init__(self, shared: Pushes, mirror: Mirror, body: Body, response: Response) -> None:
        self._shared, self._mirror, self._body, self._response = shared, mirror, body, response
        self._side_band = False
        self._remote = mirror.upstream.remote

    async def run(self) -> None:
        """Decide, act and answer.

        Raises ``OSError``, ``HttpError``, ``EOFError`` or ``PktLineError`` where the client cannot be told.
        """
        lines = await self._lines()
        if not lines:  # git's probe before a large push (remote-curl): nothing is asked
            await self._response.whole(200, _TYPE, b"")
            return
        try:
            asked = parse_commands(lines, oid_length=self._mirror.oid_length)
        except CommandError as error:
            raise HttpError(400, str(error)) from error
        self._side_band = "side-band-64k" in asked.capabilities
        async with asyncio.timeout(_PUSH_SECONDS), self._shared.slots:
            results, unpack = await self._decide(asked)
            await self._begin()
            report = status(unpack, results, side_band=self._side_band)
            await self._response.send(report)
            await self._response.finish()

    async def _lines(self) -> list[bytes]:
        lines: list[bytes] = []
        left = _MAX_LINES
        try:
            async with asyncio.timeout(_LINES_SECONDS):
                while (length := payload_length(await self._body.exactly(4))) is not None:
                    # Shallow clones name their edges, one a line, before the commands.
                    left -= length
                    if left < 0 or len(lines) > MAX_COMMANDS + 10_000:
                        raise HttpError(413, "the push names too many refs")
                    lines.append(await self._body.exactly(length))
        except TimeoutError:
            raise HttpError(408, "the push did not say in time what it is for") from None
        return lines

    async def _decide(self, asked: CommandList) -> tuple[Mapping[Command, str], str]:
        """Give the result for each command (``""``: accepted), and that of unpacking."""
        unpack = "ok"
        try:
            await self._mirror.freshen(within=FRESH_SECONDS)
            place, human = self._remote.place, self._shared.human
            rules = Rules(
                self._remote.policy,
                place=place,
                defaults=self._mirror.default_branches,
                openings=human.openings(self._remote.name) if human else (),
            )
            refs = await self._mirror.refs()
            for command in asked.commands:
                if denied := rules.judge(command):
                    raise RefusedError(denied, command=command)
                if refs.get(command.ref, "0" * self._mirror.oid_length) != command.old:
                    raise RefusedError(_moved(command, place), command=command)
            return await self._carry_out(asked, rules), unpack
        except RefusedError as error:
            refused, deny = error, error.deny
        except TooLargeError as error:
            refused, deny = RefusedError(error.deny), error.deny
        except (GitError, UpstreamError) as error:
            deny = _failed(str(error), self._remote.place)
            refused, unpack = RefusedError(deny), one_line(str(error))
        self._record_decision(asked, deny)
        await self._drain()
        await self._say(*refused.lines)
        return {one: _why(one, refused) for one in asked.commands}, unpack

    async def _carry_out(self, asked: CommandList, rules: Rules) -> Mapping[Command, str]:
        async with Quarantine(self._mirror, rules) as quarantine, early_way(self._mirror) as early:
            if asked.wants_pack:
                await quarantine.receive(self._body)
            elif await self._body.read():
                raise GitError("a push that only deletes has no pack")
            async with self._alive():
                await self._inspect(quarantine, asked, rules)
                async with self._mirror.lock:
                    if self._body.forsaken:
                        raise ConnectionAbortedError
                    self._spend(rules)
                    self._record_decision(asked, None)
                    await self._back_up(asked)
                    outcome = await forward(self._mirror, quarantine, asked.commands, early)
                    if outcome.taken:
                        await self._take_over(quarantine, asked)
                    else:
                        self._mirror.doubt()
            self._record_outcome(asked, outcome)
            await self._say(*(f"upstream: {line}" for line in outcome.words))
            return outcome.results

    async def _inspect(self, quarantine: Quarantine, asked: CommandList, rules: Rules) -> None:
        """Judge what the push brings; raises :class:`RefusedError`, ``GitError``, ``TooLargeError``."""
        tips = tuple(one.new for one in asked.commands if one.action != "delete")
        listing = asyncio.ensure_future(quarantine.new_objects(tips))
        try:  # two walks through the history, side by side
            for command in asked.commands:
                rewinds = command.action == "update" and not await quarantine.is_ancestor(
                    command.old, command.new
                )
                if rewinds and (denied := rules.judge_rewind(command)):
                    raise RefusedError(denied, command=command)
            new = await listing
        finally:
            listing.cancel()
            await asyncio.gather(listing, return_exceptions=True)
        await self._require_commits(quarantine, asked, {one.oid: one.type for one in new})
        try:
            scanner = await self._shared.scanner()
            findings, denied = await inspect(quarantine, asked.commands, new, rules, scanner, self._say)
        except (GitError, TooLargeError, ConnectionError):
            raise
        except Exception as error:
            raise RefusedError(_no_scan(type(error).__name__)) from error
        if denied:
            raise RefusedError(denied)
        if findings:
            raise RefusedError(_found(len(findings)), lines=finding_lines(findings))

    async def _require_commits(
        self, quarantine: Quarantine, asked: CommandList, kinds: Mapping[str, str]
    ) -> None:
        """Raise ``GitError`` for a ref that would lead to something else; ``kinds`` are of new objects."""
        for command in asked.commands:
            if command.action == "delete":
                continue
            kind = kinds.get(command.new) or await quarantine.type_of(command.new)
            if command.ref.startswith("refs/heads/") and kind != "commit":
                raise GitError("a branch leads to a commit, and this one would not")
            # A tree that is in no commit may give names to objects that are upstream already, and git lists
            # an object under one name at most: those names would not be looked at.
            if kind != "commit" and await quarantine.type_of(f"{command.new}^{{}}") != "commit":
                raise GitError("a tag leads to a commit, and this one would not")

    def _spend(self, rules: Rules) -> None:
        """Take a use of what is counted and needed; raises :class:`RefusedError` where none is left."""
        human = self._shared.human
        for name in sorted(rules.needed):
            if human is None or not human.spend(name):
                raise RefusedError(_used_up(name, self._remote.place))

    # Refs.

    async def _back_up(self, asked: CommandList) -> None:
        """Keep what the push is about to replace or move on from, whatever comes of it."""
        stamp = datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        lines = [
            f"create {BACKUP}/{stamp}/{one.ref.removeprefix('refs/')} {one.old}\n"
            for one in asked.commands
            if one.action != "create"
        ]
        if lines:
            await self._mirror.move("".join(lines))

    async def _take_over(self, quarantine: Quarantine, asked: CommandList) -> None:
        """Let the mirror follow the upstream. What goes wrong here the next update mends."""
        lines = [
            f"delete {one.ref}\n" if one.action == "delete" else f"update {one.ref} {one.new}\n"
            for one in asked.commands
        ]
        with contextlib.suppress(GitError, OSError):
            await quarantine.migrate()
            await self._mirror.move("".join(lines))

    # Words and record.

    async def _begin(self) -> None:
        if not self._response.begun:
            await self._response.begin(_TYPE)

    async def _say(self, *lines: str) -> None:
        if self._side_band and lines:
            await self._begin()
            await self._response.send(progress(*lines))

    @contextlib.asynccontextmanager
    async def _alive(self) -> AsyncIterator[None]:
        """Let the client's end know that work goes on, as git's own servers do."""

        async def tick() -> None:
            while True:
                await asyncio.sleep(_KEEPALIVE_SECONDS)
                await self._begin()
                # pkt-line 0005 on band 1: no data (receive-pack's keepalive).
                await self._response.send(b"0005\1")

        ticking = asyncio.ensure_future(tick()) if self._side_band else None
        try:
            yield
        finally:
            if ticking is not None:
                ticking.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError, TimeoutError):
                    await ticking

    async def _drain(self) -> None:
        """Take in the rest of a refused push: git reads its answer only after all of it."""
        with contextlib.suppress(EOFError, HttpError, ConnectionError):
            while await self._body.read():
                if self._body.received > _DRAINED * self._remote.policy.max_bytes:
                    raise ConnectionAbortedError
        if self._body.received > _DRAINED * self._remote.policy.max_bytes:
            raise ConnectionAbortedError

    def _record_decision(self, asked: CommandList, deny: Deny | None) -> None:
        fields: dict[str, AuditValue] = {"decision": "allow", "rule": self._remote.place}
        if deny is not None:
            words = {"reason": deny.reason, "rule": deny.rule, "message": deny.message}
            fields = {"decision": "deny", **words}
        self._record("git_push", asked, **fields)

    def _record(self, event: str, asked: CommandList, **fields: AuditValue) -> None:
        """Put a decision on record; raises ``GitError``: what cannot be recorded is refused."""
        refs = [f"{one.action} {one.ref} {one.old[:12]}..{one.new[:12]}" for one in asked.commands]
        try:
            self._shared.audit.append(event, remote=self._remote.name, refs=refs, **fields)
        except OSError as error:
            raise GitError("the decision cannot be put on record, so the gate is closed") from error

    def _record_outcome(self, asked: CommandList, outcome: Outcome) -> None:
        why = next((reason for reason in outcome.results.values() if reason), "")
        with contextlib.suppress(GitError):  # the upstream has decided already
            self._record("git_push_result", asked, taken=outcome.taken, message=why)


def _why(command: Command, refused: RefusedError) -> str:
    if refused.command is None or refused.command == command:
        return f"{refused.deny.message} [{refused.deny.rule}]"
    return "not pushed, because another ref of this push was refused"


def _moved(command: Command, place: str) -> Deny:
    return Deny(
        reason="ref_moved",
        rule=place,
        message=f"{command.ref}: the upstream has another state of it than this push builds on (fetch first)",
        next_step="Fetch, bring the work up to it, and push again",
    )


def _used_up(name: str, place: str) -> Deny:
    return Deny(
        reason="approval_used",
        rule=place,
        message=f"what request {name} was granted is used up or over: another push took it meanwhile",
        next_step="Ask again with request_git, if more is to be pushed",
    )


def _failed(message: str, place: str) -> Deny:
    return Deny(
        reason="push_failed",
        rule=place,
        message=f"the push could not be carried out: {one_line(message)}",
        next_step="Mend what it says, or tell the operator; nothing was changed",
    )


def _no_scan(kind: str) -> Deny:
    return Deny(
        reason="scanner_unavailable",
        rule="git_gate.scan",
        message=f"the push could not be scanned ({kind}), so it is refused",
        next_step="Tell the operator; bot-bottle's own packages may be incomplete",
    )


def _found(count: int) -> Deny:
    return Deny(
        reason="secret_found",
        rule="git_gate.scan",
        message=f"the push holds {counted(count, 'thing')} that must not leave (shown above)",
        next_step="Take them out of every commit (git commit --amend, git rebase -i), then push again",
    )
