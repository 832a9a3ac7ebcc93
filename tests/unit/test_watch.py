"""Changes in folders, as the kernel tells of them."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest

from bot_bottle import watch
from bot_bottle.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watch]:
    with Watch() as one:
        assert one.add(tmp_path, watch.CREATE | watch.CLOSE_WRITE | watch.DELETE | watch.MOVED_TO)
        yield one


def heard(one: Watch) -> list[tuple[str, int]]:
    assert select.select([one], [], [], 30)[0]
    return [(change.name, change.what) for change in one.read()]


def test_what_becomes_of_files_is_told_by_name(watching: Watch, tmp_path: Path) -> None:
    assert list(watching.read()) == []
    (tmp_path / "a").write_text("x")
    assert heard(watching) == [("a", watch.CREATE), ("a", watch.CLOSE_WRITE)]
    (tmp_path / "a").read_text()
    (tmp_path / "a").rename(tmp_path / "b\udcff")
    assert heard(watching) == [("b\udcff", watch.MOVED_TO)]
    (tmp_path / "b\udcff").unlink()
    assert heard(watching) == [("b\udcff", watch.DELETE)]


def test_a_folder_that_is_no_more_is_no_error(watching: Watch, tmp_path: Path) -> None:
    assert not watching.add(tmp_path / "none", watch.CREATE)
    (tmp_path / "file").touch()
    assert not watching.add(tmp_path / "file", watch.CREATE)
    inner = tmp_path / "inner"
    inner.mkdir()
    assert watching.add(inner, watch.CREATE)
    inner.rmdir()
    assert ("inner", 0x40000000 | watch.DELETE) in heard(watching)
    watching.close()
    watching.close()


def test_a_link_is_not_followed(watching: Watch, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    assert not watching.add(tmp_path / "link", watch.CREATE)
