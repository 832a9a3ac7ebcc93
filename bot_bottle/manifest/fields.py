"""What one value of a manifest may be, for pydantic: each with the check that reads it and its JSON Schema.

Imported only when a manifest is really read.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from bot_bottle.agent_provider.registry import known_templates
from bot_bottle.egress.routes import PRESET_METHODS, USAGE_API_NAMES
from bot_bottle.manifest import values
from bot_bottle.manifest.hosts import parse_host_pattern, parse_remote_host
from bot_bottle.manifest.remotes import known_host_key, upstream_text
from bot_bottle.pipelock.selection import DETECTORS


class Keys(BaseModel):
    """Known keys only, no conversions: what is written is what holds."""

    # Built at the first file: half of these are parts of another and never needed by themselves. A default is
    # made by model_construct, which needs no validator: each would be built by itself first, for nothing.
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True
    )


def _one_or_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _text(pattern: str) -> WithJsonSchema:
    """Say in JSON Schema what a validator below enforces; JSON Schema patterns are not anchored."""
    return WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$"})


_NAME_SCHEMA = {"type": "string", "pattern": f"^(?:{values.NAME_PATTERN.pattern})$"}
Name = Annotated[str, AfterValidator(values.name_reference), _text(values.NAME_PATTERN.pattern)]
EnvName = Annotated[str, AfterValidator(values.env_name), _text(values.ENV_NAME.pattern)]
EnvValue = Annotated[str, AfterValidator(values.env_value)]
TokenName = Annotated[str, AfterValidator(values.token_name), _text(values.ENV_NAME.pattern)]
Argument = Annotated[str, AfterValidator(values.text_without_nul)]
GitText = Annotated[str, AfterValidator(values.git_text), _text(r"[^<>\x00-\x1f]{1,200}")]
HostPattern = Annotated[str, AfterValidator(parse_host_pattern)]
Network = Annotated[str, AfterValidator(values.network)]
UpstreamUrl = Annotated[str, AfterValidator(upstream_text)]
HostKey = Annotated[str, AfterValidator(known_host_key)]
RemoteHost = Annotated[str, AfterValidator(parse_remote_host)]
RemoteName = Annotated[str, AfterValidator(values.remote_name), _text(values.REMOTE_NAME.pattern)]
SkillName = Annotated[str, AfterValidator(values.skill_name), _text(values.SKILL_NAME.pattern)]
HostPath = Annotated[str, AfterValidator(values.host_path), _text("(/|~/).*")]
Image = Annotated[str, AfterValidator(values.image)]
RefPattern = Annotated[str, AfterValidator(values.ref_pattern)]
Positive = Annotated[
    int,
    AfterValidator(values.positive),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 1 << 40}),
]
Memory = Annotated[str, AfterValidator(values.memory_text), _text(values.MEMORY.pattern)]
Method = Annotated[str, AfterValidator(values.http_method), _text(values.METHOD.pattern)]
PathPrefix = Annotated[str, AfterValidator(values.path_prefix), _text(f"/({values.PATH_CHARS.pattern})?")]
Port = Annotated[
    int, AfterValidator(values.port), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535})
]
Scheme = Annotated[
    str, AfterValidator(values.auth_scheme), WithJsonSchema({"enum": list(values.AUTH_SCHEMES)})
]
AuthName = Annotated[str, AfterValidator(values.auth_name), _text(values.AUTH_NAME.pattern)]
Placeholder = Annotated[str, AfterValidator(values.placeholder), _text(values.PLACEHOLDER.pattern)]
Detector = Annotated[str, AfterValidator(values.detector), WithJsonSchema({"enum": list(DETECTORS)})]
OnMatch = Annotated[
    str, AfterValidator(values.on_match), WithJsonSchema({"enum": ["block", "redact", "ask"]})
]
Engine = Annotated[str, AfterValidator(values.engine), WithJsonSchema({"enum": ["builtin", "external"]})]
OnOpaque = Annotated[str, AfterValidator(values.on_opaque), WithJsonSchema({"enum": ["deny", "allow"]})]
PresetName = Annotated[str, AfterValidator(values.preset), WithJsonSchema({"enum": list(PRESET_METHODS)})]
UsageApi = Annotated[str, AfterValidator(values.usage_api), WithJsonSchema({"enum": list(USAGE_API_NAMES)})]
Responses = Annotated[
    str, AfterValidator(values.responses), WithJsonSchema({"enum": ["off", "warn", "block"]})
]
Workspace = Annotated[str, AfterValidator(values.workspace), WithJsonSchema({"enum": ["copy", "empty"]})]
#: An operator's own providers have names too, which a schema made elsewhere cannot know.
Template = Annotated[str, WithJsonSchema({"anyOf": [{"enum": list(known_templates())}, _NAME_SCHEMA]})]
OneOrSeveral = Annotated[
    list[Name],
    BeforeValidator(_one_or_list),
    WithJsonSchema(
        {
            "anyOf": [
                _NAME_SCHEMA,
                {"type": "array", "minItems": 1, "uniqueItems": True, "items": _NAME_SCHEMA},
            ]
        }
    ),
]
