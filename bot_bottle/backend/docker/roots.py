"""The operator's word on which roots to trust, carried to where a sidecar cannot read it for itself.

OpenSSL takes ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` each in place of the system's own file or folder
(SSL_CTX_load_verify_locations(3)). A sidecar on this machine is given the variables; one in a container is
given what they name, and puts it in place of the same two things of its image.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError
from bot_bottle.legible import legible
from bot_bottle.operator_config import read_ca_file
from bot_bottle.sidecar.config import Roots

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE, _FOLDER = "SSL_CERT_FILE", "SSL_CERT_DIR"
#: How a certificate is named in such a folder: by its subject's hash; OpenSSL opens no other file in it.
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]{1,4}")


def operator_roots(env: Mapping[str, str]) -> Roots | None:
    """Read what the operator's environment names; None where it names nothing.

    Raises ``UsageError``, naming the variable, where that cannot be read or others could have written it.
    """
    file, folders = env.get(_FILE, ""), env.get(_FOLDER, "")
    if not file and not folders:
        return None
    return Roots(
        file=_read(_FILE, Path(file)) if file else None, folder=_folders(folders) if folders else None
    )


def _folders(listed: str) -> str:
    found = []
    for name in filter(None, listed.split(":")):
        try:
            members = sorted(member for member in Path(name).iterdir() if _HASHED.fullmatch(member.name))
        except (FileNotFoundError, NotADirectoryError):
            continue  # how folders are switched off; to OpenSSL, too, it is an empty one
        except OSError as error:
            raise UsageError(f"{_FOLDER}: {legible(name)} cannot be read ({error.strerror})") from error
        # A member that goes nowhere is a link whose certificate was taken away.
        found += [_read(_FOLDER, member) for member in members if member.exists()]
    return "".join(found)


def _read(variable: str, path: Path) -> str:
    try:
        return read_ca_file(path)
    except UsageError as error:
        raise UsageError(f"{variable}: {error}") from error
