"""The compose plugin of Docker's client, and the file that a bottle is measured against.

The plugin is this machine's, or Debian's package of it, unpacked in the cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.base_image import NoBaseError, package_source
from tests.support.outside import download_cache

if TYPE_CHECKING:
    from pathlib import Path

#: The Debian release that has the plugin as a package; the program is static enough to run on older ones.
_SUITE = "trixie"
_PACKAGE = "docker-compose"


#: What one would write by hand for the same end, of the same two images: egress itself in a sidecar, an agent
#: on a private network that has no other way out, waits until the proxy listens, and is as closed as such a
#: file can say; a volume for the agent's home, one for the record, one that hands the CA over.
_EQUAL = """\
services:
  sidecar:
    image: {sidecar}
    entrypoint: [python3, -S, -P, -c]
    command:
      - |
        import os
        from pathlib import Path
        from bot_bottle.egress.routes import EgressRoute
        from bot_bottle.egress.standalone import run_proxy
        os.chmod("/run/bot-bottle", 0o755)
        run_proxy(routes=[EgressRoute(host="allowed.test")], listen=("0.0.0.0", 9099), secrets={{}},
                  pins={{}}, ca_dir=Path("/run/bot-bottle/ca"), upstream_ca_pem="", upstream_proxy=None,
                  audit_path=Path("/var/lib/bot-bottle/audit.jsonl"))
    healthcheck: {{test: [CMD, test, -e, /run/bot-bottle/ca/ca.pem], interval: 100ms, retries: 100}}
    read_only: true
    cap_drop: [ALL]
    security_opt: [no-new-privileges]
    networks: [private, default]
    volumes: [audit:/var/lib/bot-bottle, ca:/run/bot-bottle]
  agent:
    image: {agent}
    entrypoint: [/bin/true]
    environment: {{HTTPS_PROXY: "http://sidecar:9099", SSL_CERT_FILE: /trust/ca/ca.pem}}
    read_only: true
    cap_drop: [ALL]
    security_opt: [no-new-privileges]
    networks: [private]
    volumes: [home:/home/agent, ca:/trust:ro]
    depends_on: {{sidecar: {{condition: service_healthy}}}}
networks: {{private: {{internal: true}}}}
volumes: {{audit: {{}}, ca: {{}}, home: {{}}}}
"""

#: The least that two services can be: nothing listens, nobody waits, no private network.
_BARE = """\
services:
  sidecar:
    image: {sidecar}
    entrypoint: [/bin/sh, -c, "trap 'exit 0' TERM; sleep 3600 & wait"]
    read_only: true
    cap_drop: [ALL]
    volumes: [audit:/var/lib/bot-bottle]
  agent:
    image: {agent}
    entrypoint: [/bin/true]
    network_mode: none
    read_only: true
    cap_drop: [ALL]
    volumes: [home:/home/agent]
    depends_on: [sidecar]
volumes: {{audit: {{}}, home: {{}}}}
"""

_FILES = {"docker compose": _EQUAL, "docker compose, two idle services": _BARE}


class NoComposeError(Exception):
    """There is no compose plugin here; the text says why."""


def sessions(folder: Path, *, agent: str, sidecar: str) -> dict[str, list[list[str]]]:
    """Write the files for two images and give, by name, the commands of one session: up, then down."""
    found = {}
    for number, (name, text) in enumerate(_FILES.items()):
        file = folder / f"compose-{number}.yaml"
        file.write_text(text.format(agent=agent, sidecar=sidecar))
        compose = ["docker", "compose", "-p", f"bench{number}", "-f", str(file)]
        up = [*compose, "up", "--exit-code-from", "agent"]
        found[f"{name}: up, down"] = [up, [*compose, "down", "--volumes"]]
    return found


def client_config() -> str:
    """Give the DOCKER_CONFIG with which ``docker compose`` works; empty where it works without one.

    Raises ``NoComposeError``.
    """
    if _works(""):
        return ""
    folder = download_cache() / "compose"
    if not _works(str(folder)):
        _fetch(folder)
    if not _works(str(folder)):
        raise NoComposeError(f"the compose plugin of Debian {_SUITE} does not run here")
    return str(folder)


def _works(config: str) -> bool:
    env = {**os.environ, **({"DOCKER_CONFIG": config} if config else {})}
    try:
        ran = subprocess.run(["docker", "compose", "version"], env=env, capture_output=True, check=False)
    except OSError:
        return False
    return ran.returncode == 0


def _fetch(folder: Path) -> None:
    """Unpack the package with an apt that looks nowhere but in that release; nothing is installed."""
    place = folder / "apt"
    for name in ("lists/partial", "archives/partial"):
        (place / name).mkdir(parents=True, exist_ok=True)
    try:
        mirror = package_source()[1]
    except NoBaseError as error:
        raise NoComposeError(str(error)) from error
    (place / "sources.list").write_text(f"deb {mirror} {_SUITE} main\n")
    apt = ["apt-get", "-qq"]
    for option in (
        f"Dir::Etc::SourceList={place / 'sources.list'}",
        "Dir::Etc::SourceParts=/dev/null",
        f"Dir::State::Lists={place / 'lists'}",
        f"Dir::Cache={place}",
    ):
        apt += ["-o", option]
    for command in ([*apt, "update"], [*apt, "download", _PACKAGE]):
        ran = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise NoComposeError(
                f"{_PACKAGE} of Debian {_SUITE} is not to be had: {ran.stderr.strip()[-300:]}"
            )
    (archive,) = place.glob(f"{_PACKAGE}_*.deb")
    subprocess.run(["dpkg", "-x", str(archive), str(place / "root")], check=True)
    (folder / "cli-plugins").mkdir(exist_ok=True)
    (plugin,) = (place / "root").glob("usr/**/cli-plugins/docker-compose")
    shutil.copy(plugin, folder / "cli-plugins" / "docker-compose")
    shutil.rmtree(place)
