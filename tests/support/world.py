"""The outside, scripted: a process in namespaces of its own where every address there is answers.

``python -m tests.support.world SOCKET CONFIG`` listens on the unix socket ``SOCKET`` for JSON lines. In its
network namespace every IPv4 and IPv6 address is local, so whatever leaves a bottle, to any address, lands in
a server that writes it down; nothing ever leaves this machine. Programs run by :meth:`_Control.run` live in
the same namespace: to them this is the internet.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

from bot_bottle.verify import namespaces
from tests.support import strays
from tests.support.closed_folders import open_to_everyone

TCP_PORTS = (22, 25, 80, 443, 853, 3128, 5432, 8080, 8443, 9099, 9418)
UDP_PORTS = (123, 443, 853, 5353, 9999)


def main(argv: list[str]) -> int:
    """Enter the namespaces, start the servers, serve commands until stdin ends."""
    config = json.loads(argv[2])
    host = strays.namespace_of(os.getpid())
    scratch = Path(config["scratch"])
    # The paths are opened before anything else is imported: unsharing a user namespace takes a single thread.
    namespaces.leave_the_host()
    namespaces.cover_file(Path("/etc/resolv.conf"), "nameserver 192.0.2.53\noptions timeout:1\n", scratch)
    namespaces.cover_file(
        Path("/etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n", scratch
    )
    if os.getuid() == 0:
        open_to_everyone(Path(path) for path in config["readable"])
    namespaces.own_every_address()
    control = _Control(scratch)
    server = _Server(argv[1], control)
    Path(argv[1]).chmod(0o600)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()  # the test process holds the other end: its death ends this world
    control.end()
    strays.say(strays.end_strays(host))
    return 0


class _Control:
    """The commands a test can give."""

    def __init__(self, scratch: Path) -> None:
        # Imported here, after the namespaces were entered, because of their threads and their weight.
        from bot_bottle.demo.authority import Authority  # noqa: PLC0415
        from bot_bottle.demo.messages_api import ScriptedModel  # noqa: PLC0415
        from bot_bottle.demo.upstreams import Answer, ScriptedServer, Seen, hello  # noqa: PLC0415
        from bot_bottle.verify import sinkhole  # noqa: PLC0415
        from tests.support import echo, forward, other_models, responses_api  # noqa: PLC0415

        authority = Authority("Scripted outside")
        (scratch / "outside-ca.pem").write_text(authority.pem)
        self._model = ScriptedModel("Nothing is scripted.")
        self._responses = responses_api.ScriptedResponses("Nothing is scripted.")
        self._text = "Nothing is scripted."
        self._endpoint = responses_api.TokenEndpoint()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._dns = sinkhole.ScriptedDns()
        self._udp = sinkhole.UdpSink(UDP_PORTS)
        self._packets = sinkhole.PacketLog()

        def everywhere(seen: Seen) -> Answer:
            if "anthropic" in seen.host:
                return self._model(seen)
            if seen.host == other_models.GOOGLE:
                return other_models.google(seen, self._text)
            if seen.target.startswith(other_models.CHAT):
                return other_models.chat(seen, self._text)
            if seen.host in responses_api.HOSTS:
                return self._responses(seen)
            if seen.host == responses_api.TOKEN_HOST:
                return self._endpoint(seen)
            if seen.target.startswith("/events"):
                return Answer(
                    content_type="text/event-stream", body=iter([b"data: one\n\n", b"data: two\n\n"])
                )
            if seen.target == "/refused":
                return Answer(status=401, body=b"no such token")
            if seen.method == "CONNECT" and seen.local[1] == 3128:
                return forward.tunnel(seen)
            if seen.host in echo.HOSTS:
                return echo.echo(seen)
            return hello(seen)

        listeners = sinkhole.tcp_listeners(TCP_PORTS)
        self._internet = ScriptedServer("outside", everywhere, authority=authority, listeners=listeners)

    def records(self, since: dict[str, int]) -> dict[str, Any]:
        """Give what reached the outside so far, of each kind what comes after the first ``since`` ones."""
        for sink in (self._dns, self._udp, self._packets):
            sink.settle()
        return {
            "requests": [
                {
                    **dataclasses.asdict(seen),
                    "raw": base64.b64encode(seen.raw).decode(),
                    "body": base64.b64encode(seen.body).decode(),
                }
                for seen in self._internet.seen[since["requests"] :]
            ],
            "accepted": self._internet.accepted[since["accepted"] :],
            "questions": [dataclasses.asdict(one) for one in self._dns.questions[since["questions"] :]],
            "datagrams": [
                (address, port, base64.b64encode(data).decode())
                for address, port, data in self._udp.datagrams[since["datagrams"] :]
            ],
            "packets": [dataclasses.asdict(one) for one in list(self._packets.packets)[since["packets"] :]],
        }

    def dns(self, name: str, answers: list[list[str]]) -> None:
        """Script the answers for a name."""
        self._dns.script(name, answers)

    def model(self, final_text: str, tool: str = "", tool_input: dict[str, object] | None = None) -> None:
        """Script the model behind api.anthropic.com, Google's and chat completions (text alone)."""
        self._text = final_text
        self._model.__init__(final_text, tool=tool, tool_input=tool_input)  # type: ignore[misc]

    def responses(self, final_text: str, **script: Any) -> None:
        """Script the model behind chatgpt.com and api.openai.com."""
        self._responses.__init__(final_text, **script)  # type: ignore[misc]

    def renews(self, tokens: dict[str, object], status: int = 200) -> None:
        """Trade a refresh token for these at Codex' logins, or refuse it; who asks before that waits."""
        self._endpoint.give(tokens, status)

    def release(self) -> None:
        """Let the model go on whose answer is held."""
        self._responses.release()

    def run(
        self, argv: list[str], env: dict[str, str], cwd: str, uid: int, stdin: str, timeout: float
    ) -> dict[str, object]:
        """Run a program in this world, as ``uid`` where this process is root, and wait for it."""
        process = self._popen(argv, env, cwd, uid, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            out, err = process.communicate(base64.b64decode(stdin), timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += b"\n[killed: it ran longer than the test allows]"
        return {
            "returncode": process.returncode,
            "stdout": base64.b64encode(out).decode(),
            "stderr": base64.b64encode(err).decode(),
        }

    def spawn(self, argv: list[str], env: dict[str, str], cwd: str, uid: int, log: str) -> int:
        """Start a program in this world and give its process id; its output goes to the file ``log``."""
        with Path(log).open("ab") as output:
            process = self._popen(argv, env, cwd, uid, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._children[process.pid] = process
        return process.pid

    def wait(self, pid: int, timeout: float) -> int | None:
        """Wait for a spawned program; None if it still runs."""
        try:
            return self._children[pid].wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a spawned program."""
        self._children[pid].send_signal(number)

    def end(self) -> None:
        """End what is still running."""
        for process in self._children.values():
            if process.poll() is None:
                process.terminate()
        for process in self._children.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def _popen(
        self,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        uid: int,
        *,
        stdin: int,
        stdout: Any,
        stderr: Any = -1,
    ) -> subprocess.Popen[bytes]:
        switch: dict[str, Any] = {}
        if uid != os.getuid():
            switch = {"user": uid, "group": uid, "extra_groups": []}
        return subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            **switch,
        )


class _Handler(socketserver.StreamRequestHandler):
    server: _Server
    OPS: ClassVar[frozenset[str]] = frozenset(
        {"records", "dns", "model", "responses", "renews", "release", "run", "spawn", "wait", "kill"}
    )

    def handle(self) -> None:
        for line in self.rfile:
            call = json.loads(line)
            name = call.pop("op")
            try:
                if name not in self.OPS:
                    raise ValueError(f"unknown command {name}")
                answer = {"ok": getattr(self.server.control, name)(**call)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, control: _Control) -> None:
        self.control = control
        super().__init__(path, _Handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
