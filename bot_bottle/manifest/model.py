"""What the operator declared, once read and checked: frozen values that know nothing of files or YAML.

:meth:`Manifest.bottle_for` is the single place that yields the bottle a launch uses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from bot_bottle.errors import ManifestError, UsageError
from bot_bottle.git_gate.policy import PushPolicy
from bot_bottle.pipelock.selection import DETECTORS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bot_bottle.egress.routes import Preset, UsageApiName
    from bot_bottle.pipelock.finding import Kind

#: Who wrote an agent: the operator (``~/.bot-bottle/agents``) or the repository (``./.bot-bottle/agents``).
AgentOrigin: TypeAlias = Literal["operator", "repository"]

#: What scans a bottle's content: egress alone, or the pipelock program behind it as well.
ContentEngine: TypeAlias = Literal["builtin", "external"]
#: What a launch finds in its workspace unless ``--cwd`` or ``--no-cwd`` says otherwise.
Workspace: TypeAlias = Literal["copy", "empty"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSource:
    """Where a setting stands. ``line`` and ``column`` count from 1, ``key`` is its path in that file."""

    path: Path
    line: int
    column: int
    key: str = ""

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestAuth:
    """The credential egress adds on a route, and how; see ``RouteAuth``.

    ``placeholder`` is the text that stands for it inside the bottle; empty where nothing does.
    """

    scheme: str
    token_ref: str
    name: str = ""
    placeholder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestPipelock:
    """One route's content-scanning keys, as in :class:`~bot_bottle.egress.routes.EgressRoute`.

    ``ssrf_ip_allowlist`` holds IP networks in canonical form, ``max_body`` bytes.
    """

    tls_passthrough: bool = False
    ssrf_ip_allowlist: tuple[str, ...] = ()
    detectors: tuple[Kind, ...] = DETECTORS
    on_match: Literal["block", "redact", "ask"] = "block"
    on_opaque: Literal["deny", "allow"] | None = None
    max_body: int | None = None
    responses: Literal["off", "warn", "block"] = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRoute:
    """One permitted destination; ``host`` is normalised (see ``manifest/hosts.py``)."""

    host: str
    path_allowlist: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    auth: ManifestAuth | None = None
    http2: bool = False
    usage: UsageApiName | None = None
    preset: Preset | None = None
    pipelock: ManifestPipelock = field(default_factory=ManifestPipelock)
    strip_cookies: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEgress:
    """Every way out that a bottle declares."""

    routes: tuple[ManifestRoute, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestAgentProvider:
    """The program that runs. ``argv`` is a plain command's argv.

    ``auth_token`` and ``api_key`` name a host variable each; ``plan`` is the subscription behind the former,
    where it is not what this host is logged in with. ``token_command`` prints a credential instead, and
    ``token_file`` holds one. ``dockerfile`` and ``image`` say what bottles that start from an image are made
    of.
    """

    template: str
    argv: tuple[str, ...] = ()
    auth_token: str = ""
    api_key: str = ""
    plan: str = ""
    token_command: tuple[str, ...] = ()
    token_file: str = ""
    dockerfile: str = ""
    image: str = ""
    forward_host_credentials: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestLimits:
    """What a bottle may use: ``memory`` in bytes, ``cpus`` in processors; None is the backend's default."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    open_files: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestGitUser:
    """Who commits claim to be from; an empty field is not set. A claim, vouched for by nobody."""

    name: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestGitRemote:
    """One upstream behind the git gate.

    ``host`` is the key it is declared under, ``name`` its label, unique in the bottle. The upstream is
    ``scheme://user@upstream_host:port/path``, ``port`` None where none was written. ``identity_file`` (a host
    path) and ``known_host_key`` go with ssh only; without the latter the gate asks nothing and forwards
    nothing. ``token_ref`` names the host variable of an https upstream's token. ``push`` says what may be
    pushed.
    """

    host: str
    name: str
    upstream: str
    scheme: Literal["ssh", "https"]
    user: str
    upstream_host: str
    port: int | None
    path: str
    identity_file: str = ""
    known_host_key: str = ""
    token_ref: str = ""
    push: PushPolicy = field(default_factory=PushPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestGit:
    """A bottle's git identity and the remotes it may reach through the gate."""

    user: ManifestGitUser = field(default_factory=ManifestGitUser)
    remotes: tuple[ManifestGitRemote, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestBottle:
    """A declared boundary, everything it extends folded in.

    ``env`` is as written: literals, ``${HOST_VAR}``, ``?prompt`` (see ``env.py``). ``sources`` says where
    each setting was written, by key: ``env.NAME``, ``egress.routes[0]``, ``git.user.name``,
    ``git.remotes.HOST``, ``guard.NAME``, ``limits.memory``, and ``agent_provider``, ``pipelock``,
    ``supervise``, ``workspace`` as wholes; what nobody wrote has no source. ``guard`` names variables, of the
    bottle's ``env`` or of the operator, whose values must not leave by any road. ``pipelock`` is its engine.
    """

    name: str
    path: Path
    agent_provider: ManifestAgentProvider
    extends: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    egress: ManifestEgress = field(default_factory=ManifestEgress)
    limits: ManifestLimits = field(default_factory=ManifestLimits)
    git: ManifestGit = field(default_factory=ManifestGit)
    guard: tuple[str, ...] = ()
    pipelock: ContentEngine = "builtin"
    supervise: bool = False
    workspace: Workspace = "empty"
    sources: Mapping[str, ManifestSource] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestAgent:
    """A declared worker: the name of its bottle, and its file's body, stripped, as the prompt.

    ``sources`` has ``bottle``, ``skills``, ``git.user.name`` and ``git.user.email`` where they were written.
    """

    name: str
    path: Path
    bottle: str
    prompt: str = ""
    origin: AgentOrigin = "operator"
    skills: tuple[str, ...] = ()
    git_user: ManifestGitUser = field(default_factory=ManifestGitUser)
    sources: Mapping[str, ManifestSource] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything declared. A broken file is kept as its error and raised only when that name is asked for.

    ``broken_files`` has the errors by file as well.
    """

    agents: Mapping[str, ManifestAgent] = field(default_factory=dict)
    bottles: Mapping[str, ManifestBottle] = field(default_factory=dict)
    broken_agents: Mapping[str, ManifestError] = field(default_factory=dict)
    broken_bottles: Mapping[str, ManifestError] = field(default_factory=dict)
    broken_files: Mapping[Path, ManifestError] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    home: Path | None = None

    @classmethod
    def resolve(cls, cwd: Path, home: Path | None = None) -> Manifest:
        """Read the operator's manifest and the agents of the repository in ``cwd``.

        ``home`` is the operator's bot-bottle folder, by default ``paths.home_dir()``. Never raises for a
        bad file: what is wrong is raised by :meth:`require_agent` and :meth:`bottle_for`, or listed in
        ``broken_agents``, ``broken_bottles`` and ``warnings``.
        """
        from bot_bottle.manifest.loader import load_manifest  # noqa: PLC0415 - pydantic and yaml only when needed

        return load_manifest(cwd, home)

    def require_agent(self, name: str) -> ManifestAgent:
        """Give the agent; raises ``ManifestError`` if its file is broken, ``UsageError`` if there is none."""
        if name in self.broken_agents:
            raise self.broken_agents[name]
        if name not in self.agents:
            raise UsageError(self._unknown("agent", name, {*self.agents, *self.broken_agents}))
        return self.agents[name]

    def bottle_for(self, agent_name: str) -> ManifestBottle:
        """Give the effective bottle of an agent; the only door by which a launch gets one.

        The agent's ``git.user`` is laid over the bottle's, field by field, the agent's where it is not
        empty; nothing else of an agent changes a bottle. Raises ``ManifestError`` where the agent's or the
        bottle's file is broken or the bottle is missing, ``UsageError`` where there is no such agent.
        """
        agent = self.require_agent(agent_name)
        if agent.bottle in self.broken_bottles:
            raise self.broken_bottles[agent.bottle]
        if agent.bottle not in self.bottles:
            known = {*self.bottles, *self.broken_bottles}
            raise _bottle_error(agent, self._unknown("bottle", agent.bottle, known))
        return _with_git_user(self.bottles[agent.bottle], agent)

    def git_identity_summary(self, agent_name: str) -> str:
        """Say who an agent's commits claim to be from, each field with who declared it; ``""`` for nobody.

        As in ``Some Bot (agent), me@example.com (bottle)``. Raises what :meth:`bottle_for` raises.
        """
        agent, user = self.require_agent(agent_name), self.bottle_for(agent_name).git.user
        fields = (user.name, agent.git_user.name), (user.email, agent.git_user.email)
        return ", ".join(f"{value} ({'agent' if own else 'bottle'})" for value, own in fields if value)

    def _unknown(self, kind: str, name: str, known: set[str]) -> str:
        from bot_bottle.manifest.problem import shown  # noqa: PLC0415 - keeps this module free of the loader

        import_names = ", ".join(sorted(known))
        folder = f"{self.home or '~/.bot-bottle'}/{kind}s"
        if not known:
            return f"there is no {kind} {shown(name)!r}, nor any other; write one as {folder}/NAME.md"
        return f"there is no {kind} {shown(name)!r}; those that exist: {import_names}"


def _bottle_error(agent: ManifestAgent, message: str) -> ManifestError:
    from bot_bottle.manifest.problem import ManifestFileError, Problem  # noqa: PLC0415 - as in _unknown

    source = agent.sources.get("bottle")
    line, column = (source.line, source.column) if source else (0, 0)
    problem = Problem(file=str(agent.path), line=line, column=column, key="bottle", message=message)
    return ManifestFileError([problem])


def _with_git_user(bottle: ManifestBottle, agent: ManifestAgent) -> ManifestBottle:
    own, inherited = agent.git_user, bottle.git.user
    if not own.name and not own.email:
        return bottle
    user = ManifestGitUser(name=own.name or inherited.name, email=own.email or inherited.email)
    written = {key: source for key, source in agent.sources.items() if key.startswith("git.user.")}
    return replace(bottle, git=replace(bottle.git, user=user), sources={**bottle.sources, **written})
