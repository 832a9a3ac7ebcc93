"""``bot-bottle proxy``: egress alone."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command("proxy")
@click.option(
    "--routes",
    required=True,
    type=click.Path(path_type=Path),
    help="YAML whose `routes:` has the manifest's route keys.",
)
@click.option(
    "--listen", required=True, metavar="HOST:PORT", help="Where to listen; port 0 takes a free one."
)
@click.option("--ca-dir", required=True, type=click.Path(path_type=Path), help="Where ca.pem is written.")
@click.option(
    "--upstream-ca",
    type=click.Path(path_type=Path),
    help="PEM file trusted for upstream servers besides the system's roots.",
)
@click.option(
    "--pin",
    "pins",
    multiple=True,
    metavar="HOST=ADDRESS[:PORT]",
    help="Dial this address for HOST instead of asking DNS.",
)
@click.option("--upstream-proxy", default="", metavar="URL", help="Go out by this HTTP proxy (CONNECT).")
@click.option("--upstream-proxy-user", default="", metavar="USER", help="The user that proxy asks for.")
@click.option(
    "--upstream-proxy-password-ref", default="", metavar="NAME", help="The variable that holds the password."
)
@click.option(
    "--upstream-proxy-resolves",
    is_flag=True,
    help="Tell that proxy names; where they lead is not checked then.",
)
@click.option(
    "--no-proxy",
    "no_proxy",
    multiple=True,
    metavar="HOST|NETWORK",
    help="Reach this host, *.name or network without it.",
)
@click.option(
    "--audit",
    "audit_path",
    type=click.Path(path_type=Path),
    help="Write the hash-chained record of decisions here.",
)
def command(  # noqa: PLR0913 - one for each option, as click gives them
    *,
    routes: Path,
    listen: str,
    ca_dir: Path,
    upstream_ca: Path | None,
    pins: tuple[str, ...],
    upstream_proxy: str,
    upstream_proxy_user: str,
    upstream_proxy_password_ref: str,
    upstream_proxy_resolves: bool,
    no_proxy: tuple[str, ...],
    audit_path: Path | None,
) -> int:
    """Run the egress proxy in the foreground, with the policy of a bottle, beside any other sandbox.

    Credentials come from the variables that the routes' token_ref name; every account of this machine that
    can connect to the port uses them. SIGTERM and Ctrl-C end it.
    """
    from bot_bottle.egress.routes import egress_resolve_token_values  # noqa: PLC0415
    from bot_bottle.egress.standalone import become_proxy  # noqa: PLC0415
    from bot_bottle.manifest.loader import load_routes_file  # noqa: PLC0415
    from bot_bottle.operator_config import parse_pin_option, read_ca_file  # noqa: PLC0415

    loaded = load_routes_file(routes)
    proxy = None
    if upstream_proxy:
        from bot_bottle.errors import UsageError  # noqa: PLC0415
        from bot_bottle.upstream_proxy import proxy_settings, with_password  # noqa: PLC0415

        try:
            settings = proxy_settings(
                upstream_proxy,
                user=upstream_proxy_user,
                password_ref=upstream_proxy_password_ref,
                resolves=upstream_proxy_resolves,
                bypass=no_proxy,
            )
        except ValueError as error:
            key, _, words = str(error).partition(": ")
            option = key.replace("_", "-") if key == "no_proxy" else f"upstream-{key.replace('_', '-')}"
            raise UsageError(f"--{option}: {words}") from error
        proxy = with_password(settings, os.environ)
    return become_proxy(
        routes=loaded,
        listen=parse_listen(listen),
        ca_dir=ca_dir,
        secrets=egress_resolve_token_values(loaded, os.environ),
        pins=dict(parse_pin_option(pin) for pin in pins),
        upstream_ca_pem=read_ca_file(upstream_ca) if upstream_ca else "",
        upstream_proxy=proxy,
        audit_path=audit_path,
    )


def parse_listen(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT`` or ``[V6]:PORT``; HOST is an IP address or ``localhost``. Raises ``UsageError``."""
    from ipaddress import ip_address  # noqa: PLC0415

    from bot_bottle.errors import UsageError  # noqa: PLC0415

    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    host = "127.0.0.1" if host == "localhost" else host
    try:
        address = str(ip_address(host))
    except ValueError as error:
        raise UsageError(
            f"--listen {text}: write an IP address and a port, such as 127.0.0.1:9099"
        ) from error
    if not port.isascii() or not port.isdigit() or int(port[:6]) > 65535:
        raise UsageError(f"--listen {text}: the port must be a number from 0 to 65535")
    return address, int(port)
