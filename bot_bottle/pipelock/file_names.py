"""Files that hold credentials by their name or place, as programs keep them in a home or a project."""

from __future__ import annotations

import re

#: Templates that a project shows on purpose.
_TEMPLATE = re.compile(r"(?i)[._-](?:example|sample|template|dist|tmpl|defaults?)(?:\.|$)")
_NAMES = re.compile(
    r"(?i)\.env(?:\..+)?|\.envrc|\.?_?netrc|\.npmrc|\.yarnrc\.yml|\.pypirc|\.git-credentials|\.pgpass|\.my\.cnf"
    r"|\.htpasswd|\.dockercfg|\.vault[-_]token|\.s3cfg|\.boto"
    r"|id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?"
    r"|.+\.(?:pem|key|p12|pfx|jks|keystore|kdbx|ppk|ovpn|tfvars|mobileprovision)"
    r"|terraform\.tfstate.*|.+\.tfvars\.json"
    r"|credentials(?:\.(?:json|ya?ml|toml|ini|csv))?|secrets?\.(?:json|ya?ml|toml|ini|env)"
    r"|(?:service[-_]account|client[-_]secret)[^/]*\.json|application_default_credentials\.json"
)
_PLACES = re.compile(
    r"(?:^|/)(?:\.ssh/|\.gnupg/|\.aws/|\.azure/|\.config/gcloud/|\.docker/config\.json$|\.kube/config$)"
)
#: The public halves.
_PUBLIC = re.compile(r"(?i)\.pub$|(?:^|[._-])(?:ca|cert|chain|public|pub)[^/]*\.(?:pem|crt)$")


def is_credential_file(path: str) -> bool:
    """Tell a path whose name or folder says that a credential is in it; templates of one are none."""
    name = path.rpartition("/")[2]
    if _PUBLIC.search(name) or _TEMPLATE.search(name):
        return False
    return _NAMES.fullmatch(name) is not None or _PLACES.search(path) is not None
