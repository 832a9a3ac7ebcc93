"""Egress alone, in the foreground: the same policy, data plane and record as in a bottle's sidecar.

What reads options and a manifest's keys takes a third of the memory that serving does, so the command becomes
a process that has only what serves (execve(2): its number and its terminal stay). The config goes over in a
file without a name, in memory (memfd_create(2)); the credentials leave the environment on the way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bot_bottle import paths
from bot_bottle.audit import AuditLog
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.sidecar.config import SidecarConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot_bottle.egress.ca import CertificateAuthority
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.secret import Secret
    from bot_bottle.sidecar.config import Pin, UpstreamProxy

_IDENTITY = "proxy"
_BACKLOG = 512


#: What is started in the command's place; the config's descriptor and what is no part of it follow.
_MODULE = "bot_bottle.cli.serve_proxy"


def become_proxy(
    *,
    routes: Sequence[EgressRoute],
    listen: tuple[str, int],
    ca_dir: Path,
    secrets: Mapping[str, Secret],
    pins: Mapping[str, Pin],
    upstream_ca_pem: str,
    upstream_proxy: UpstreamProxy | None,
    audit_path: Path | None,
) -> int:
    """Go on as :func:`run_proxy` in a process that has loaded nothing else; returns only where it cannot.

    ``listen`` is an address literal and a port (0 takes a free one). The certificate of a CA made for this
    run is written to ``ca_dir/ca.pem``, its key nowhere. Without ``audit_path`` decisions are not kept.
    Raises :class:`UsageError` or :class:`LaunchError`.
    """
    config = SidecarConfig(
        identity=_IDENTITY,
        routes=tuple(routes),
        audit_path=str(audit_path or ""),
        secrets=dict(secrets),
        pins=dict(pins),
        upstream_ca_pem=upstream_ca_pem,
        upstream_proxy=upstream_proxy,
        cache=str(paths.cache_dir()),
    )
    if not sys.executable:
        return run_proxy(config, listen=listen, ca_dir=ca_dir)
    fd = os.memfd_create("config", 0)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(config.to_wire())
    os.lseek(fd, 0, os.SEEK_SET)
    given = {route.auth.token_ref for route in config.routes if route.auth}
    given |= {upstream_proxy.password_ref} if upstream_proxy else set()
    env = {name: value for name, value in os.environ.items() if name not in given}
    root = str(Path(__file__).resolve().parent.parent.parent)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (root, env.get("PYTHONPATH"))))
    argv = [sys.executable, "-P", "-m", _MODULE, str(fd), listen[0], str(listen[1]), str(ca_dir)]
    sys.stdout.flush()
    os.execve(sys.executable, argv, env)  # noqa: S606 - no shell is wanted
    raise AssertionError("execve(2) does not return")


def run_proxy(config: SidecarConfig, *, listen: tuple[str, int], ca_dir: Path) -> int:
    """Serve the proxy port until SIGTERM or SIGINT; gives the exit code. Raises as :func:`become_proxy`."""
    from bot_bottle.egress.ca import CertificateAuthority  # noqa: PLC0415
    from bot_bottle.sidecar.harden import conceal  # noqa: PLC0415

    conceal()
    with _listener(listen) as sock:
        audit = _open_audit(config)
        try:
            ca = CertificateAuthority(_IDENTITY)
            _write_certificate(ca_dir, ca.certificate_pem)
            audit.append("start", identity=_IDENTITY, routes=len(config.routes), pid=os.getpid())
            _serve(config, sock, audit, ca)
        except OSError as error:
            raise LaunchError(f"the proxy cannot go on: {error}") from error
        finally:
            audit.close()
    return 0


def _serve(config: SidecarConfig, sock: socket.socket, audit: AuditLog, ca: CertificateAuthority) -> None:
    import uvloop  # noqa: PLC0415

    from bot_bottle.egress.proxy import EgressProxy  # noqa: PLC0415
    from bot_bottle.sidecar.harden import spare_collector  # noqa: PLC0415
    from bot_bottle.sidecar.service import Reporter  # noqa: PLC0415

    loop = cast("asyncio.AbstractEventLoop", uvloop.new_event_loop())
    asyncio.set_event_loop(loop)
    Reporter().listen(loop)
    proxy = EgressProxy(config, audit=audit, ca=ca, loop=loop)
    spare_collector()
    stop = loop.create_future()

    def end() -> None:
        if not stop.done():
            stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        loop.run_until_complete(proxy.serve([("proxy", sock)]))
        host, port = sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        if not ip_address(host).is_loopback:
            sys.stderr.write(
                f"warning: {shown} is not a loopback address; whoever reaches it uses these credentials\n"
            )
        sys.stdout.write(f"bot-bottle proxy: listening on {shown}:{port}\n")
        sys.stdout.flush()
        loop.run_until_complete(stop)
    finally:
        proxy.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        asyncio.set_event_loop(None)


def _listener(listen: tuple[str, int]) -> socket.socket:
    host, port = listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(f"--listen {host}:{port}: {error.strerror or error}; choose another port") from error


def _open_audit(config: SidecarConfig) -> AuditLog:
    if not config.audit_path:
        return AuditLog.discarding()
    path = Path(config.audit_path)
    try:
        return AuditLog.open(path, redact=config.guarded().values())
    except BlockingIOError as error:
        raise UsageError(f"{path}: another process writes this audit log") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"the audit log cannot be opened: {error}") from error


def _write_certificate(folder: Path, pem: str) -> None:
    """Write ``ca.pem`` whole or not at all, readable by the programs that shall trust it."""
    part = folder / f".ca.pem.{os.getpid()}"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "w") as file:
            file.write(pem)
        part.replace(folder / "ca.pem")
    except OSError as error:
        raise UsageError(
            f"--ca-dir {folder}: {error.strerror or error}; choose a folder you can write"
        ) from error
