"""Images for microVMs that are fetched by name, from a registry on loopback, by the engine's own program."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle.backend.smolmachines import images
from bot_bottle.errors import UnavailableError
from tests.conftest import cannot

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

_JSON = "application/vnd.oci.image.manifest.v1+json"


class Registry:
    """The four answers that fetching one image takes (OCI distribution specification, "pull")."""

    def __init__(self) -> None:
        layer = _layer()
        config = json.dumps(
            {
                "architecture": images.ARCHITECTURES[os.uname().machine],
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
                "config": {},
            }
        ).encode()
        self.blobs = {_digest(data): data for data in (layer, config)}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _JSON,
                "config": _described(config, "application/vnd.oci.image.config.v1+json"),
                "layers": [_described(layer, "application/vnd.oci.image.layer.v1.tar")],
            }
        ).encode()
        self.asked: list[str] = []
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                parts = self.path.split("/")
                found, kind = registry.blobs.get(parts[-1]), "application/octet-stream"
                if parts[-2] == "manifests" and parts[-1] in {"1", _digest(registry.manifest)}:
                    found, kind = registry.manifest, _JSON
                if self.path.rstrip("/") == "/v2":
                    found = b"{}"
                self.send_response(200 if found is not None else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(found or b"")))
                if parts[-2] == "manifests" and found is not None:
                    self.send_header("Docker-Content-Digest", _digest(found))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(found or b"")

            do_HEAD = do_GET  # noqa: N815 - the library's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.name = f"127.0.0.1:{self.server.server_port}/some/image:1"


def _layer() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        member = tarfile.TarInfo("bin/sh")
        member.size, member.mode = 5, 0o755
        archive.addfile(member, io.BytesIO(b"shell"))
    return data.getvalue()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _described(data: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    """Serve one image; the cache is this test's own, the engine's program where the engine put it."""
    try:
        program = images.fetcher()
    except UnavailableError as error:
        cannot(f"nothing can be fetched here: {error}", "smolmachines")
    monkeypatch.setattr(images, "fetcher", lambda: program)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    serving = Registry()
    yield serving
    serving.server.shutdown()
    serving.server.server_close()


def source(name: str) -> images.ImageSource:
    return images.ImageSource(kind="name", value=name, where="agent_provider.image")


def test_an_image_is_fetched_once_and_again_on_request(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = images.fetched(source(registry.name))
    assert f"fetching {registry.name} (agent_provider.image)" in capsys.readouterr().err
    with tarfile.open(archive) as opened:
        (manifest,) = json.load(opened.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert manifest["RepoTags"] == [registry.name]
    asked = len(registry.asked)
    assert images.fetched(source(registry.name)) == archive
    assert len(registry.asked) == asked, "what is there is not asked for again"
    images.fetched(source(registry.name), refresh=True)
    assert len(registry.asked) > asked
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_an_image_that_is_not_to_be_had_is_told_in_one_sentence(registry: Registry) -> None:
    missing = f"{registry.name}2"  # another tag
    with pytest.raises(UnavailableError, match=r"^agent_provider.image: .* could not be fetched: "):
        images.fetched(source(missing))
    folder = next(path for path in Path(os.environ["BOT_BOTTLE_HOME"]).rglob("images"))
    assert list(folder.iterdir()) == []
