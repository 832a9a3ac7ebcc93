"""Why bubblewrap cannot make a bottle here, as one sentence and the one command that would change it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
_MAX_USERNS = "user.max_user_namespaces"
_DEBIAN_CLONE = "kernel.unprivileged_userns_clone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the sentences depend on; a setting the kernel does not have is empty."""

    apparmor_restricts: str = ""
    max_user_namespaces: str = ""
    unprivileged_clone: str = ""
    in_container: bool = False
    is_root: bool = False


def look_at_machine() -> Machine:
    """Read the settings."""
    return Machine(
        apparmor_restricts=_sysctl(_APPARMOR),
        max_user_namespaces=_sysctl(_MAX_USERNS),
        unprivileged_clone=_sysctl(_DEBIAN_CLONE),
        in_container=any(Path(path).exists() for path in ("/.dockerenv", "/run/.containerenv")),
        is_root=os.geteuid() == 0,
    )


def explain(words: str, bwrap_path: str, machine: Machine) -> tuple[str, str]:
    """Turn bubblewrap's own words into (what is wrong, the command that mends it or an empty text)."""
    low = words.lower()
    if machine.max_user_namespaces == "0":
        return "this kernel allows no user namespaces (user.max_user_namespaces is 0)", (
            f"sudo sysctl -w {_MAX_USERNS}=15000"
        )
    if machine.unprivileged_clone == "0":
        return (
            "this kernel keeps user namespaces from ordinary users (kernel.unprivileged_userns_clone is 0)",
            (f"sudo sysctl -w {_DEBIAN_CLONE}=1"),
        )
    if machine.apparmor_restricts == "1" and _is_refusal(low):
        return "AppArmor keeps user namespaces from programs without a profile (Ubuntu 23.10 and later)", (
            f"sudo sh -c 'printf \"abi <abi/4.0>,\\nprofile bot-bottle {bwrap_path} flags=(unconfined) "
            "{ userns, }\\n\" > /etc/apparmor.d/bot-bottle && apparmor_parser -r /etc/apparmor.d/bot-bottle'"
        )
    if "mount proc" in low:
        return "a new /proc cannot be mounted, because this container covers parts of its own", (
            "docker run --security-opt systempaths=unconfined --security-opt seccomp=unconfined …"
        )
    if "before bubblewrap" in low and _is_refusal(low) and machine.is_root:
        return (
            "root has too little power in this container to prepare a bottle; run as an ordinary user there",
            "",
        )
    if machine.in_container and _is_refusal(low):
        return "this container does not allow new namespaces", (
            "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined …"
        )
    if "no space left on device" in low or "resource temporarily unavailable" in low:
        return "the kernel's limit on user namespaces is used up", f"sudo sysctl -w {_MAX_USERNS}=100000"
    if _is_refusal(low) and "namespace" in low:
        return "this kernel does not allow user namespaces; its configuration needs CONFIG_USER_NS=y", ""
    return f"bubblewrap failed: {words or 'it gave no reason'}", ""


def _is_refusal(low: str) -> bool:
    return "permission denied" in low or "operation not permitted" in low or "no permissions" in low


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return ""
