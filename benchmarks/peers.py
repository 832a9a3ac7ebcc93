"""The proxies that are measured side by side, each started as its own documentation says."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.load import Road
from benchmarks.upstream import DOMAIN, HOST, MANY_HOSTS, Upstream
from bot_bottle.demo.authority import Authority
from bot_bottle.paths import cache_dir
from bot_bottle.pipelock.engine import Betterleaks
from bot_bottle.pipelock.gate import GatedEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = Path(os.environ.get("BOT_BOTTLE_BENCH_CACHE", Path.home() / ".cache" / "bot-bottle-bench"))
SQUID_CERTGEN = Path("/usr/lib/squid/security_file_certgen")
_START_SECONDS = 30.0

#: As long and as random as real ones are, and of no use.
_TOKEN = f"sk-bench-{hashlib.sha256(b'bench').hexdigest()}"


class Running:
    """A proxy that accepts connections."""

    def __init__(self, process: subprocess.Popen[bytes], road: Road) -> None:
        self.process = process
        self.road = road

    def memory(self) -> float:
        """Give what it and its children hold of memory (RSS) in MiB."""
        kib = 0
        for folder in self._processes():
            with contextlib.suppress(OSError):
                kib += int((folder / "status").read_text().partition("VmRSS:")[2].split()[0])
        return kib / 1024

    def processor_seconds(self) -> float:
        """Give what it and its children have used of processors, in and for their programs."""
        ticks = 0
        for folder in self._processes():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _processes(self) -> Iterator[Path]:
        waiting = [self.process.pid]
        while waiting:
            folder = Path("/proc", str(waiting.pop()))
            yield folder
            with contextlib.suppress(OSError):
                for task in (folder / "task").iterdir():
                    waiting += [int(child) for child in (task / "children").read_text().split()]


class Peer(Protocol):
    """A proxy program: ``absent`` says why it cannot run here, or nothing."""

    name: str

    def absent(self) -> str:
        """Say why it is not here, and what would bring it."""

    def start(self, folder: Path, upstream: Upstream) -> contextlib.AbstractContextManager[Running]:
        """Run it in the foreground until the context ends."""


class BotBottle:
    """``bot-bottle proxy``: the same policy code and data plane as in every sidecar."""

    name = "bot-bottle proxy"

    def __init__(self, *, credential: bool = True, rules: bool = True) -> None:
        """Without ``rules`` neither requests nor answers are judged by any, as on a model's own route."""
        self._credential = credential
        self._rules = rules

    def absent(self) -> str:
        """Nothing: it is what we measure."""
        return ""

    @contextlib.contextmanager
    def start(self, folder: Path, upstream: Upstream) -> Iterator[Running]:
        """Start it with a route and its credential for each host, all pinned to the upstream on loopback."""
        port = _free_port()
        routes = [
            f"  - host: {host}\n    ports: [{upstream.port}]\n"
            + ("    auth: {scheme: Bearer, token_ref: BENCH_TOKEN}\n" if self._credential else "")
            + ("" if self._rules else "    pipelock: {tls_passthrough: true}\n")
            for host in (HOST, *MANY_HOSTS)
        ]
        (folder / "routes.yaml").write_text("routes:\n" + "".join(routes))
        argv = [sys.executable, "-m", "bot_bottle", "proxy", "--routes", str(folder / "routes.yaml")]
        argv += ["--listen", f"127.0.0.1:{port}", "--ca-dir", str(folder / "ca")]
        argv += ["--upstream-ca", str(upstream.ca_file), "--audit", str(folder / "audit.jsonl")]
        for host in (HOST, *MANY_HOSTS):
            argv += ["--pin", f"{host}=127.0.0.1:{upstream.port}"]
        ca_file = folder / "ca" / "ca.pem"
        _compile_ahead()
        with _running(argv, port, env={**os.environ, "BENCH_TOKEN": _TOKEN}) as process:
            while not ca_file.exists():  # it takes connections a moment before
                time.sleep(0.01)
            yield Running(process, Road(port=port, ca_file=ca_file, upstream_port=upstream.port))


def _compile_ahead() -> None:
    """Have the sets of the content rules in the cache, where every start but a machine's first finds them."""
    gates = GatedEngine(Betterleaks, cache_dir())
    if not gates.take_kept_gates():
        gates.make_gates()


class Squid:
    """Squid with ssl-bump, one worker, no cache, no access log."""

    name = "squid (ssl-bump)"

    def absent(self) -> str:
        """Tell whether a squid with TLS interception is installed."""
        if shutil.which("squid", path=_SBIN) and SQUID_CERTGEN.exists():
            return ""
        return "not installed (apt install squid-openssl)"

    @contextlib.contextmanager
    def start(self, folder: Path, upstream: Upstream) -> Iterator[Running]:
        """Start it in the foreground with its own CA and certificate helper."""
        authority, port = Authority("Squid benchmark"), _free_port()
        folder.chmod(0o755)
        certificate, key = authority.root()
        (folder / "ca.pem").write_bytes(certificate)
        (folder / "bump.pem").write_bytes(key + certificate)
        (folder / "bump.pem").chmod(0o644)  # squid reads it after it gave root up; the key lives for one run
        (folder / "hosts").write_text("".join(f"127.0.0.1 {host}\n" for host in (HOST, *MANY_HOSTS)))
        subprocess.run(
            [SQUID_CERTGEN, "-c", "-s", folder / "db", "-M", "4MB"], check=True, capture_output=True
        )
        if os.getuid() == 0:
            for path in (folder / "db", *(folder / "db").rglob("*")):
                shutil.chown(path, "proxy", "proxy")
        (folder / "squid.conf").write_text(
            f"http_port 127.0.0.1:{port} ssl-bump generate-host-certificates=on "
            f"dynamic_cert_mem_cache_size=4MB tls-cert={folder}/bump.pem\n"
            f"sslcrtd_program {SQUID_CERTGEN} -s {folder}/db -M 4MB\nsslcrtd_children 1\n"
            f"tls_outgoing_options cafile={upstream.ca_file}\n"
            f"acl bench dstdomain .{DOMAIN}\nhttp_access allow bench\nhttp_access deny all\n"
            "ssl_bump bump all\n"
            f"hosts_file {folder}/hosts\ncache deny all\n"
            f"cache_mem 0 MB\naccess_log none\ncache_log /dev/null\n"
            f"pid_filename none\nworkers 1\nvisible_hostname bench\n"
            f"shutdown_lifetime 0 seconds\npinger_enable off\n"
            f"coredump_dir none\nnetdb_filename none\n"
        )
        squid = shutil.which("squid", path=_SBIN) or "squid"
        with _running([squid, "-N", "-f", str(folder / "squid.conf")], port, env=dict(os.environ)) as process:
            yield Running(process, Road(port=port, ca_file=folder / "ca.pem", upstream_port=upstream.port))


class Mitmproxy:
    """``mitmdump`` with flow output off, in a virtual environment of its own."""

    name = "mitmproxy"
    program = CACHE / "mitmproxy" / "bin" / "mitmdump"

    def absent(self) -> str:
        """Install it into the cache with pip where it is not there yet."""
        if not self.program.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(subprocess.CalledProcessError):
                subprocess.run(
                    [sys.executable, "-m", "venv", CACHE / "mitmproxy"], check=True, capture_output=True
                )
                pip = CACHE / "mitmproxy" / "bin" / "pip"
                subprocess.run([pip, "install", "-q", "mitmproxy"], check=True, capture_output=True)
        return "" if self.program.exists() else "could not be installed (pip install mitmproxy)"

    @contextlib.contextmanager
    def start(self, folder: Path, upstream: Upstream) -> Iterator[Running]:
        """Start it with an addon that resolves the benchmark's name to loopback."""
        port = _free_port()
        addon = folder / "resolve.py"
        addon.write_text(_RESOLVE_ADDON)
        argv = [str(self.program), "-q", "-p", str(port), "--listen-host", "127.0.0.1", "-s", str(addon)]
        argv += ["--set", f"confdir={folder}", "--set", f"ssl_verify_upstream_trusted_ca={upstream.ca_file}"]
        argv += ["--set", "connection_strategy=lazy", "--set", "flow_detail=0"]
        with _running(argv, port, env=dict(os.environ)) as process:
            authority = folder / "mitmproxy-ca-cert.pem"
            yield Running(process, Road(port=port, ca_file=authority, upstream_port=upstream.port))


class Nginx:
    """Nginx as a reverse proxy, one worker: what C needs for the same TLS on both sides, deciding nothing."""

    name = "nginx (reverse proxy)"

    def absent(self) -> str:
        """Tell whether it is installed."""
        return "" if shutil.which("nginx", path=_SBIN) else "not installed (apt install nginx-light)"

    @contextlib.contextmanager
    def start(self, folder: Path, upstream: Upstream) -> Iterator[Running]:
        """Start it in the foreground with a certificate for every host of the benchmark."""
        port = _free_port()
        certificate, key = upstream.authority.leaf(f"*.{DOMAIN}")
        (folder / "both.pem").write_bytes(key + certificate)
        (folder / "logs").mkdir()
        (folder / "nginx.conf").write_text(
            "daemon off; worker_processes 1; pid nginx.pid; error_log /dev/null;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; client_max_body_size 0; proxy_buffering off;\n"
            " proxy_request_buffering off; keepalive_requests 1000000000;\n"
            " client_body_temp_path b; proxy_temp_path p;\n"
            f" upstream u {{ server 127.0.0.1:{upstream.port};\n"
            "  keepalive 256; keepalive_requests 1000000000; }\n"
            f" server {{ listen 127.0.0.1:{port} ssl backlog=512; ssl_certificate both.pem;\n"
            "  ssl_certificate_key both.pem; ssl_session_tickets off; location / { proxy_pass https://u;\n"
            f"  proxy_http_version 1.1; proxy_set_header Connection ''; proxy_ssl_name {HOST};\n"
            "  proxy_set_header Host $http_host; proxy_ssl_server_name on; proxy_ssl_verify on;\n"
            f"  proxy_ssl_trusted_certificate {upstream.ca_file}; }} }} }}\n"
        )
        nginx = shutil.which("nginx", path=_SBIN) or "nginx"
        argv = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "/dev/null"]
        with _running(argv, port, env=dict(os.environ)) as process:
            road = Road(port=port, ca_file=upstream.ca_file, upstream_port=upstream.port, tunnel=False)
            yield Running(process, road)


# An addon that rewrote the server's address would cost mitmproxy its kept upstream connections.
_RESOLVE_ADDON = f"""
import socket
ask = socket.getaddrinfo
def answer(host, *rest, **options):
    return ask("127.0.0.1" if str(host).endswith({DOMAIN!r}) else host, *rest, **options)
socket.getaddrinfo = answer
"""

ALL: tuple[Peer, ...] = (BotBottle(), Squid(), Mitmproxy(), Nginx())

_SBIN = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


@contextlib.contextmanager
def _running(argv: list[str], port: int, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for_port(argv, process, port)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for_port(argv: list[str], process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{argv[0]} did not start")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
