"""The shape of manifest files, for pydantic: the one list of keys that checks, hints and JSON Schema share.

Imported only when a manifest is really read. Each field's first example is what an error message tells the
operator to write instead.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bot_bottle.git_gate.policy import DEFAULT_BRANCHES, DEFAULT_MAX_BYTES, DEFAULT_MAX_OBJECTS
from bot_bottle.manifest.fields import (
    Argument,
    AuthName,
    Detector,
    Engine,
    EnvName,
    EnvValue,
    GitText,
    HostKey,
    HostPath,
    HostPattern,
    Image,
    Keys,
    Memory,
    Method,
    Name,
    Network,
    OneOrSeveral,
    OnMatch,
    OnOpaque,
    PathPrefix,
    Placeholder,
    Port,
    Positive,
    PresetName,
    RefPattern,
    RemoteHost,
    RemoteName,
    Responses,
    Scheme,
    SkillName,
    Template,
    TokenName,
    UpstreamUrl,
    UsageApi,
    Workspace,
)
from bot_bottle.pipelock.selection import DETECTORS


class AuthKeys(Keys):
    """``egress.routes[].auth``: the credential egress adds on the way out."""

    scheme: Scheme = Field(
        description="Bearer, token or Basic (Authorization header), header or query (see name)",
        examples=["Bearer", "token", "Basic", "header", "query"],
    )
    token_ref: TokenName = Field(description="host variable that holds the credential", examples=["MY_TOKEN"])
    name: AuthName = Field(
        default="",
        description="the header's or the query parameter's name; for Basic the user",
        examples=["X-Api-Key"],
    )
    placeholder: Placeholder = Field(
        default="",
        description="what stands for the credential in the bottle; refused to every other host",
        examples=["api-key-placeholder"],
    )


class PipelockKeys(Keys):
    """``egress.routes[].pipelock``: content scanning of one host."""

    tls_passthrough: bool = Field(
        default=False, description="switch content rules off for this host", examples=[True]
    )
    ssrf_ip_allowlist: list[Network] = Field(
        default=[], description="private networks this host may resolve to", examples=[["10.1.2.0/24"]]
    )
    detectors: list[Detector] = Field(
        default=list(DETECTORS), description="the content rules that are on", examples=[["credential"]]
    )
    on_match: OnMatch = Field(
        default="block",
        description="what becomes of a request they find something in; redact overwrites it where that is "
        "safe, ask blocks until a human says yes",
        examples=["block", "redact", "ask"],
    )
    on_opaque: OnOpaque = Field(
        default="",
        description="what becomes of content that cannot be read; deny and allow are for every type",
        examples=["deny", "allow"],
    )
    max_body: Positive | None = Field(
        default=None, description="the most bytes of one request's body", examples=[1048576]
    )
    responses: Responses = Field(
        default="warn",
        description="what becomes of an answer that orders an agent about; off looks at none, warn records",
        examples=["off", "warn", "block"],
    )


class EngineKeys(Keys):
    """``pipelock``: what scans the content of a whole bottle."""

    engine: Engine = Field(
        default="builtin",
        description="external: the pipelock program too, as a second hop behind egress",
        examples=["builtin", "external"],
    )


class RouteKeys(Keys):
    """``egress.routes[]``: one permitted destination."""

    host: HostPattern = Field(
        description="host name, *.name for every name below it, or an IP address",
        examples=["api.example.com"],
    )
    path_allowlist: list[PathPrefix] = Field(
        default=[], description="path prefixes; none means every path", examples=[["/v1/"]]
    )
    methods: list[Method] = Field(
        default=[], description="request methods; none means every method", examples=[["GET", "HEAD"]]
    )
    preset: PresetName = Field(
        default="",
        description="in place of methods: git-read opens git's fetches alone, forge-api-read GET and HEAD",
        examples=["git-read"],
    )
    ports: list[Port] = Field(
        default=[], description="TCP ports; none means 443, and 80 without auth", examples=[[443]]
    )
    auth: AuthKeys | None = Field(
        default=None,
        description="the credential that is added on the way",
        examples=[{"scheme": "Bearer", "token_ref": "MY_TOKEN"}],
    )
    http2: bool = Field(
        default=False, description="offer HTTP/2 to clients and server, as gRPC needs it", examples=[True]
    )
    usage: UsageApi = Field(
        default="",
        description="the API by which the host's answers say what they used of a model",
        examples=["chat-completions"],
    )
    pipelock: PipelockKeys = Field(
        default=PipelockKeys.model_construct(), examples=[{"tls_passthrough": True}]
    )
    strip_cookies: bool = Field(
        default=False,
        description="keep the bottle's cookies from this host, and the host's from the bottle",
        examples=[True],
    )


_ROUTE = {"host": "api.example.com"}


class EgressKeys(Keys):
    """``egress``: every way out."""

    routes: list[RouteKeys] = Field(
        default=[], description="every way out; replaces what is inherited", examples=[[_ROUTE]]
    )
    add_routes: list[RouteKeys] = Field(
        default=[], min_length=1, description="ways out besides what is inherited", examples=[[_ROUTE]]
    )


class GitUserKeys(Keys):
    """``git.user``: who commits claim to be from."""

    name: GitText = Field(default="", description="author and committer", examples=["Some One"])
    email: GitText = Field(default="", description="their address", examples=["someone@example.com"])


class GitRemoteKeys(Keys):
    """``git.remotes.HOST``: one upstream behind the git gate."""

    Name: RemoteName = Field(description="its label, unique in the bottle", examples=["project"])
    Upstream: UpstreamUrl = Field(
        description="ssh://user@host[:port]/path or https://host[:port]/path",
        examples=["ssh://git@git.example.com/me/project.git"],
    )
    IdentityFile: HostPath = Field(
        default="", description="the host's ssh key for it (ssh only)", examples=["~/.ssh/id_ed25519"]
    )
    KnownHostKey: HostKey = Field(
        default="", description="the upstream's host key (ssh only)", examples=["ssh-ed25519 AAAA..."]
    )
    TokenRef: TokenName = Field(
        default="", description="host variable that holds the token (https only)", examples=["MY_GIT_TOKEN"]
    )
    Branches: list[RefPattern] = Field(
        default=list(DEFAULT_BRANCHES), description="branches that may be pushed", examples=[["bottle/**"]]
    )
    AllowDefaultBranch: bool = Field(
        default=False, description="the default branch may be pushed", examples=[True]
    )
    AllowForce: bool = Field(default=False, description="pushes may drop commits", examples=[True])
    AllowDelete: bool = Field(default=False, description="refs may be deleted", examples=[True])
    AllowTags: bool = Field(default=False, description="tags may be pushed", examples=[True])
    AllowPaths: list[RefPattern] = Field(
        default=[],
        description="CI files and .gitmodules that may be changed",
        examples=[[".github/workflows/**"]],
    )
    MaxPushBytes: Positive = Field(
        default=DEFAULT_MAX_BYTES, description="how large one push may be", examples=[268435456]
    )
    MaxPushObjects: Positive = Field(
        default=DEFAULT_MAX_OBJECTS, description="how many objects one push may bring", examples=[100000]
    )


class GitKeys(Keys):
    """``git``: identity and remotes."""

    user: GitUserKeys = Field(default=GitUserKeys.model_construct(), examples=[{"name": "Some One"}])
    remotes: dict[RemoteHost, GitRemoteKeys] = Field(
        default={},
        description="upstreams by host; merged by host, an empty mapping drops what is inherited",
        examples=[{"git.example.com": {"Name": "project", "Upstream": "ssh://git@git.example.com/a.git"}}],
    )


class AgentGitKeys(Keys):
    """``git`` of an agent: its identity only."""

    user: GitUserKeys = Field(default=GitUserKeys.model_construct(), examples=[{"name": "Some Bot"}])


class AgentProviderKeys(Keys):
    """``agent_provider``: the program that runs. Which keys go with which template its provider says."""

    template: Template = Field(default="", description="the program's template", examples=["command"])
    argv: list[Argument] = Field(
        default=[], min_length=1, description="program and arguments", examples=[["my-agent", "--run"]]
    )
    api_key: TokenName = Field(
        default="", description="host variable that holds the provider's API key", examples=["MY_API_KEY"]
    )
    auth_token: TokenName = Field(
        default="", description="host variable that holds the provider's credential", examples=["MY_TOKEN"]
    )
    token_command: list[Argument] = Field(
        default=[],
        min_length=1,
        description="command of this host that prints the credential; run again while a bottle runs",
        examples=[["pass", "show", "my-token"]],
    )
    token_file: HostPath = Field(
        default="",
        description="file of this host that holds the credential; read again while a bottle runs",
        examples=["~/.config/my-token"],
    )
    plan: Literal["", "pro", "max", "team", "enterprise"] = Field(
        default="",
        description="the subscription that the credential belongs to, where this host's login does not say",
        examples=["max"],
    )
    dockerfile: HostPath = Field(
        default="",
        description="image recipe, for backends that build images",
        examples=["~/Dockerfile.agent"],
    )
    image: Image = Field(
        default="",
        description="what a machine starts from: a folder, an image archive or an image's name",
        examples=["python:3.12-slim"],
    )
    forward_host_credentials: bool = Field(
        default=False,
        description="let egress add the credential this host is logged in with",
        examples=[True],
    )


class LimitsKeys(Keys):
    """``limits``: what one bottle may use of the machine."""

    memory: Memory = Field(default="", examples=["4GiB"])
    cpus: Annotated[float, Field(ge=0.05, le=4096, allow_inf_nan=False)] = Field(default=0, examples=[2])
    pids: Annotated[int, Field(ge=16, le=4194304)] = Field(default=0, examples=[512])
    open_files: Annotated[int, Field(ge=64, le=1048576)] = Field(default=0, examples=[4096])


class BottleKeys(Keys):
    """A bottle's frontmatter."""

    extends: OneOrSeveral = Field(
        default=[], min_length=1, description="one bottle or several, folded left to right", examples=["base"]
    )
    env: dict[EnvName, EnvValue] = Field(
        default={},
        description="variables: a value, ${NAME} for the host's, or ?QUESTION to be asked at the start",
        examples=[{"NAME": "value"}],
    )
    agent_provider: AgentProviderKeys = Field(
        default=AgentProviderKeys.model_construct(), examples=[{"template": "command"}]
    )
    egress: EgressKeys = Field(default=EgressKeys.model_construct(), examples=[{"routes": [_ROUTE]}])
    git: GitKeys = Field(default=GitKeys.model_construct(), examples=[{"user": {"name": "Some One"}}])
    guard: list[EnvName] = Field(
        default=[],
        description="variables, of env or of the host, whose values must not leave",
        examples=[["DB_PASSWORD"]],
    )
    pipelock: EngineKeys = Field(default=EngineKeys.model_construct(), examples=[{"engine": "external"}])
    supervise: bool = Field(default=False, description="let the agent ask for more", examples=[True])
    workspace: Workspace = Field(
        default="empty", description="copy: as if started with --cwd", examples=["copy", "empty"]
    )
    limits: LimitsKeys = Field(default=LimitsKeys.model_construct(), examples=[{"memory": "4GiB"}])


class AgentKeys(Keys):
    """An agent's frontmatter. The last five belong to other programs and are accepted without meaning."""

    bottle: Name = Field(description="the bottle this agent runs in", examples=["my-bottle"])
    skills: list[SkillName] = Field(
        default=[],
        description="folders to bring along from where the bottle's program looks for skills",
        examples=[["tdd"]],
    )
    git: AgentGitKeys = Field(
        default=AgentGitKeys.model_construct(), examples=[{"user": {"name": "Some Bot"}}]
    )
    name: object = None
    description: object = None
    model: object = None
    color: object = None
    memory: object = None


class RoutesFileKeys(Keys):
    """The file of ``bot-bottle proxy --routes``."""

    routes: list[RouteKeys] = Field(examples=[[{"host": "api.example.com"}]])
