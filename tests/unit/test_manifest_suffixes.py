"""Wildcards: never over a name that strangers get names under, and no list is read without one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bot_bottle.errors import ManifestError
from bot_bottle.manifest import suffixes
from bot_bottle.manifest.hosts import parse_host_pattern
from bot_bottle.manifest.loader import load_routes_file
from bot_bottle.operator_config import parse_pin_option
from tests.support.manifest_tree import Tree, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARED = [
    "s3.eu-west-1.amazonaws.com",
    "lambda-url.us-east-1.on.aws",
    "cloudapp.azure.com",
    "westeurope.cloudapp.azure.com",
    "a.run.app",
    "run.app",
    "ngrok-free.dev",
    "ddns.net",
    "eu.org",
    "uk.com",
    "wordpress.com",
    "github.io",
    "co.uk",
    "com.au",
    "nip.io",
    "webhook.site",
    "anything.ck",  # *.ck
    "xn--55qx5d.cn",  # the list has it in Chinese letters
]


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_suffix_is_never_opened_as_a_whole(name: str) -> None:
    with pytest.raises(ValueError, match=f"anyone can get one under {name}; list the hosts one by one"):
        parse_host_pattern(f"*.{name}")
    assert parse_host_pattern(f"mine.{name}") == f"mine.{name}"
    assert parse_host_pattern(f"*.very.mine.{name}") == f"*.very.mine.{name}"


@pytest.mark.parametrize(
    ("name", "below"),
    [("amazonaws.com", "amazonaws.com"), ("eu-west-1.on.aws", "on.aws"), ("azure.com", "cloudapp.azure.com")],
)
def test_nor_is_a_name_with_a_shared_suffix_below_it(name: str, below: str) -> None:
    with pytest.raises(ValueError, match=f"anyone can get one under .*{below}"):
        parse_host_pattern(f"*.{name}")


@pytest.mark.parametrize(
    "name",
    ["example.com", "corp.internal", "docs.example", "a.co.uk", "www.ck", "city.kobe.jp", "github.com"],
)
def test_a_name_of_one_owner_is(name: str) -> None:
    assert parse_host_pattern(f"*.{name}") == f"*.{name}"


@pytest.mark.parametrize("name", ["com", "nosuchtld", "internal", "xn--p1ai"])
def test_no_top_level_domain_is_known_or_not(name: str) -> None:
    with pytest.raises(ValueError, match=f"opens every name under .{name}"):
        parse_host_pattern(f"*.{name}")


def test_bottles_routes_files_and_pins_go_the_same_way(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.agent()
    tree.bottle("egress: {add_routes: [{host: '*.a.run.app'}]}\n")
    assert "anyone can get one under a.run.app" in tree.refusal()
    with pytest.raises(ManifestError, match=r"routes\[0\]\.host: opens names of many owners"):
        load_routes_file(put(tmp_path / "routes.yaml", "routes: [{host: '*.a.run.app'}]\n"))
    with pytest.raises(ManifestError, match=r"anyone can get one under a\.run\.app"):
        parse_pin_option("*.a.run.app=127.0.0.1")


@pytest.fixture
def fresh_rules() -> Iterator[None]:
    suffixes._rules.cache_clear()
    yield
    suffixes._rules.cache_clear()


def test_without_the_list_no_wildcard_is_believed(fresh_rules: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "publicsuffixlist", None)
    with pytest.raises(ValueError, match="cannot be judged without the Public Suffix List; install"):
        parse_host_pattern("*.example.com")
    assert parse_host_pattern("api.example.com") == "api.example.com"


_LOADED = """
import sys
from pathlib import Path
from bot_bottle.manifest.model import Manifest
assert not Manifest.resolve(Path("/"), Path(sys.argv[1])).broken_files
print("publicsuffixlist" in sys.modules)
"""


@pytest.mark.parametrize(("host", "is_loaded"), [("api.example.com", "False"), ("'*.example.com'", "True")])
def test_the_list_is_read_for_a_wildcard_only(tmp_path: Path, host: str, is_loaded: str) -> None:
    tree = Tree(tmp_path)
    tree.bottle(f"egress: {{routes: [{{host: {host}}}]}}\n")
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, str(tree.home)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == is_loaded
