"""The kernel's switches of a bottle's own network namespace, in which there is loopback alone."""

from __future__ import annotations

#: What the engine says where its machine has no IPv6.
NO_IPV6 = "net.ipv6"


def switches(*, ipv6: bool = True) -> dict[str, str]:
    """Give them as ``create_container`` takes them: every port for everybody and, where there is IPv6, ::1.

    So the doorkeeper needs no capability to listen below 1024; nobody but the bottle is in that network.
    """
    found = {"net.ipv4.ip_unprivileged_port_start": "0"}
    if ipv6:
        found["net.ipv6.conf.all.disable_ipv6"] = "0"
        found["net.ipv6.conf.lo.disable_ipv6"] = "0"
    return found
