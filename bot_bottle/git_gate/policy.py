"""Which refs and paths a push may change: safe by default, each refusal names the key that lifts it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from bot_bottle.decision import Deny
from bot_bottle.git_gate.globs import matches
from bot_bottle.git_gate.protected import is_protected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bot_bottle.git_gate.commands import Command

#: The branches that a bottle may push unless its manifest says otherwise.
DEFAULT_BRANCHES = ("bottle/**",)
DEFAULT_MAX_BYTES = 256 * 1024 * 1024
DEFAULT_MAX_OBJECTS = 100_000

_BRANCHES, _TAGS = "refs/heads/", "refs/tags/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPolicy:
    """One remote's rules.

    ``branches`` are patterns below ``refs/heads/``; ``paths`` lift the protection of what
    :func:`is_protected` tells; ``max_bytes`` bounds one push's pack and, tenfold, what it unpacks to.
    """

    branches: tuple[str, ...] = DEFAULT_BRANCHES
    force: bool = False
    delete: bool = False
    tags: bool = False
    default_branch: bool = False
    paths: tuple[str, ...] = ()
    max_bytes: int = DEFAULT_MAX_BYTES
    max_objects: int = DEFAULT_MAX_OBJECTS

    def to_wire(self) -> dict[str, object]:
        """Serialise for the sidecar's config."""
        return asdict(self)

    @classmethod
    def from_wire(cls, obj: Mapping[str, object]) -> PushPolicy:
        """Read what :meth:`to_wire` wrote; raises ``ValueError``, ``KeyError`` or ``TypeError``."""
        values = {one.name: obj[one.name] for one in fields(cls)}
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})  # type: ignore[arg-type]


#: Where each rule stands in the manifest, below ``git.remotes.HOST.``.
KEYS = {
    "branches": "Branches",
    "force": "AllowForce",
    "delete": "AllowDelete",
    "tags": "AllowTags",
    "default_branch": "AllowDefaultBranch",
    "paths": "AllowPaths",
    "max_bytes": "MaxPushBytes",
    "max_objects": "MaxPushObjects",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Branches and paths that a human opened beside a policy; ``name`` tells it from others.

    Where it has branches, its paths are open in pushes to these alone. With ``counted`` each push that needs
    it takes a use of it.
    """

    name: str
    branches: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    counted: bool = False


class Rules:
    """The rules of one push: a policy with the place it stands in (``git.remotes.HOST``), what was opened
    besides, and the upstream's default branches. ``needed`` names what was opened and counted, and needed.
    """

    __slots__ = ("_defaults", "_openings", "_place", "_refs", "needed", "policy")

    def __init__(
        self,
        policy: PushPolicy,
        *,
        place: str,
        defaults: Iterable[str] = (),
        openings: Iterable[Opening] = (),
    ) -> None:
        self.policy = policy
        # Some servers keep refs on file systems that know no case.
        self._defaults = frozenset(name.casefold() for name in defaults)
        self._place = place
        # What is not counted is leaned on first: no use of another is taken in vain.
        self._openings = sorted(openings, key=lambda one: one.counted)
        self._refs: list[str] = []
        self.needed: set[str] = set()

    def judge(self, command: Command) -> Deny | None:
        """Judge a command by its names alone, before anything of the push is unpacked."""
        policy, ref = self.policy, command.ref
        self._refs.append(ref)
        if ref.startswith(_TAGS):
            if not policy.tags:
                return self._deny("tag_denied", "tags", f"{ref}: tags may not be pushed", "true")
        elif not ref.startswith(_BRANCHES):
            return Deny(
                reason="ref_denied",
                rule=self._place,
                message=f"{ref}: only branches and tags go through the gate",
                next_step="Push a branch instead",
            )
        elif (denied := self._judge_branch(ref)) is not None:
            return denied
        if command.action == "delete" and not policy.delete:
            return self._deny("delete_denied", "delete", f"{ref}: refs may not be deleted", "true")
        if command.action == "update" and ref.startswith(_TAGS) and not policy.force:
            return self._deny("force_denied", "force", f"{ref}: a tag that exists may not be moved", "true")
        return None

    def _judge_branch(self, ref: str) -> Deny | None:
        branch = ref.removeprefix(_BRANCHES)
        if branch.casefold() in self._defaults:
            if self.policy.default_branch:
                return None
            message = f"{ref}: is the upstream's default branch, which may not be pushed to"
            return self._deny("default_branch_denied", "default_branch", message, "true")
        if matches(branch, self.policy.branches) or self._opened(lambda one: matches(branch, one.branches)):
            return None
        allowed = ", ".join(self.policy.branches) or "none"
        return self._deny(
            "branch_denied",
            "branches",
            f"{ref}: is not among the branches that may be pushed ({allowed})",
            f"a list that covers {branch}",
        )

    def judge_rewind(self, command: Command) -> Deny | None:
        """Judge an update that is known to drop commits."""
        if self.policy.force:
            return None
        message = f"{command.ref}: the push would drop commits that the upstream has (no fast-forward)"
        return self._deny("force_denied", "force", message, "true")

    def judge_paths(self, changed: Iterable[tuple[str, str]]) -> Deny | None:
        """Judge the paths a push changes, as (commit, path), once all its commands were judged."""
        for commit, path in changed:
            if self._closes(path):
                return self._deny_path(f"commit {commit[:12]} changes {path}")
        return None

    def judge_merges(self, overruled: Iterable[tuple[str, str]]) -> Deny | None:
        """Judge the paths that merges take from one side against another, as (commit, path)."""
        for commit, path in overruled:
            if self._closes(path):
                return self._deny_path(f"merge {commit[:12]} drops what a parent of it changed in {path}")
        return None

    def guards(self, path: str) -> bool:
        """Tell a path that the policy protects, whatever a human opened besides."""
        return not matches(path, self.policy.paths) and is_protected(path)

    def _closes(self, path: str) -> bool:
        """Tell a path that may not be changed, and note the opening that lets another be."""
        return self.guards(path) and not self._opened_path(path)

    def _deny_path(self, what: str) -> Deny:
        message = f"{what}, which the upstream may run or follow by itself"
        return self._deny("path_denied", "paths", message, "a list that covers the path")

    def judge_size(self, *, bytes_seen: int = 0, objects: int = 0) -> Deny | None:
        """Judge how much a push brings."""
        policy = self.policy
        if bytes_seen > policy.max_bytes:
            message = f"the push is larger than {policy.max_bytes} bytes"
            return self._deny("push_too_large", "max_bytes", message, "a larger number")
        if objects > policy.max_objects:
            message = f"the push brings {objects} objects, more than {policy.max_objects}"
            return self._deny("push_too_large", "max_objects", message, "a larger number")
        return None

    def _opened_path(self, path: str) -> bool:
        def opens(one: Opening) -> bool:
            here = not one.branches or all(
                ref.startswith(_BRANCHES) and matches(ref.removeprefix(_BRANCHES), one.branches)
                for ref in self._refs
            )
            return here and matches(path, one.paths)

        return self._opened(opens)

    def _opened(self, opens: Callable[[Opening], bool]) -> bool:
        """Tell whether a human opened it, and note what that leans on."""
        found = next((one for one in self._openings if opens(one)), None)
        if found is not None and found.counted:
            self.needed.add(found.name)
        return found is not None

    def _deny(self, reason: str, field: str, message: str, value: str) -> Deny:
        key = f"{self._place}.{KEYS[field]}"
        step = f"The operator can allow it in the bottle's manifest: {key}: {value}"
        return Deny(reason=reason, rule=key, message=message, next_step=step)
