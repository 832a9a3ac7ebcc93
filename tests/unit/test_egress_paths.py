"""Every reading of a path counts; git pushes are known in every spelling."""

from __future__ import annotations

import contextlib
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.egress.git_push import is_git_push
from bot_bottle.egress.paths import AmbiguousPathError, fully_decoded, path_allowed, readings

ALLOWED = ("/repos/me", "/v1/")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/repos/me", True),
        ("/repos/me/", True),
        ("/repos/me/a/b.c", True),
        ("/repos/me/a%20b", True),
        ("/repos/me/a%2Fb", True),
        ("/repos/me/%C3%A9", True),
        ("/repos/me/a;v=1", True),
        ("/repos/me/a//b", True),
        ("/repos/me/a/../b", True),
        ("/v1/", True),
        ("/v1/x", True),
        ("/v1", False),
        ("/v1;x", False),
        ("/v1x", False),
        ("/repos/men", False),
        ("/repos/me.git", False),
        ("/repos/me%00", False),
        ("", False),
        ("*", False),
        ("/", False),
        ("//", False),
        ("/repos/me/..", False),
        ("/repos/me/../", False),
        ("/repos/me/../me2", False),
        ("/repos/me/%2e%2e/me2", False),
        ("/repos/me/%2E./me2", False),
        ("/repos/me/%252e%252e/me2", False),
        ("/repos/me/%25252e%25252e/me2", False),
        ("/repos/me/..%2fme2", False),
        ("/repos/me%2f..%2fme2", False),
        ("/repos/me/..%5cme2", False),
        ("/repos/me/..\\me2", False),
        ("/repos/me\\..\\me2", False),
        ("/repos/me/..;/me2", False),
        ("/repos/me/..;x=y/me2", False),
        ("/repos/me/.%3b/../../me2", False),
        ("/repos/me/a/..//../me2", False),
        ("/repos/me/%3f/../../../me2", False),
        ("/x/../repos/me", False),
        ("/x/..%2frepos/me", False),
        ("//repos/me", False),
        ("/./repos/me", False),
        ("/REPOS/me", False),
        ("http://evil/repos/me", False),
    ],
)
def test_prefixes(path: str, allowed: bool) -> None:
    try:
        assert path_allowed(path, ALLOWED) is allowed
    except AmbiguousPathError:
        assert not allowed


@pytest.mark.parametrize(
    "path",
    ["/repos/me/%c0%ae%c0%ae/x", "/repos/me/%u002e%u002e/x", "/repos/me/%2500", "/repos/me/" + "%2f" * 3000,
     "/repos/me/%" + "25" * 60 + "2f"],
)  # fmt: skip
def test_paths_nobody_can_be_sure_of(path: str) -> None:
    with pytest.raises(AmbiguousPathError):
        path_allowed(path, ALLOWED)


OVERLONG = ["%c0%ae", "%e0%80%ae", "%f0%80%80%ae", "%c0%af", "%ef%bf", "%ff", "%80", "%ed%a0%80"]
TRIMMED = ["..%20", "..%20%20", ".%20.", "%20..", "...", "....", "..%20.", "..%c2%a0"]
CONTROLS = ["..%ff", ".%09.", "..%0d", "..%0a", "..%00", "..%7f", "..%c2%85", "x%01"]
LOOKALIKES = [
    "%ef%bc%8e%ef%bc%8e",  # fullwidth full stop
    "%e2%80%a4%e2%80%a4",  # one dot leader
    "%e2%80%a5",  # two dot leader
    "..%ef%bc%8fx",  # fullwidth solidus
    "..%ef%bc%bcx",  # fullwidth reverse solidus
    "..%ef%bc%9bx",  # fullwidth semicolon
    "..%cd%bex",  # Greek question mark, a semicolon in every normal form
    "..%ef%bc%9fx",  # fullwidth question mark
    "%ef%bc%852e%ef%bc%852e",  # fullwidth percent sign
    "%e2%84%80",  # account of: a/c
]


@pytest.mark.parametrize("segment", [*OVERLONG, *TRIMMED, *CONTROLS, *LOOKALIKES])
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_segments_that_some_server_reads_as_another(segment: str, again: bool) -> None:
    for written in (segment, segment.upper()):
        path = f"/v1/{quote(written) if again else written}/../x"
        for end in (path, path.removesuffix("/../x"), path.removesuffix("../x")):
            with pytest.raises(AmbiguousPathError):
                path_allowed(end, ALLOWED)


@pytest.mark.parametrize(
    "path",
    ["/v1/caf%C3%A9", "/v1/@scope%2fname", "/v1/@scope%2Fname/-/name-1.0.tgz", "/v1/a%20b.c",
     "/v1/%E6%97%A5%E6%9C%AC", "/v1/cafe%CC%81", "/v1/a...b", "/v1/.hidden", "/v1/..hidden",
     "/v1/a..", "/v1/x.%20y", "/v1/%C2%BD",
     "/v1/%F0%9F%8D%BE.txt", "/v1/%EF%AC%81le.c", "/v1/compare/main...topic%2Fone"],
)  # fmt: skip
def test_ordinary_paths_stay_allowed(path: str) -> None:
    assert path_allowed(path, ALLOWED)


def test_no_rule_allows_every_path() -> None:
    assert path_allowed("/anything/%00/../x", ())


SEGMENT = st.sampled_from(
    ["a", "me", "repos", "..", ".", "", "%2e%2e", "..;", ";x", "%2f", "%5c", "\\", "%252e", "v1"]
)


@given(st.lists(SEGMENT, max_size=7))
def test_what_is_allowed_stays_inside_however_it_is_read(segments: list[str]) -> None:
    path = "/repos/me/" + "/".join(segments)
    try:
        allowed = path_allowed(path, ALLOWED)
    except AmbiguousPathError:
        return
    if allowed:
        for server in (lambda p: p, unquote, lambda p: unquote(unquote(p)), lambda p: p.replace("\\", "/")):
            assert (resolve(server(path)) + "/").startswith(("/repos/me/", "/v1/"))


def resolve(path: str) -> str:
    kept: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        name = segment.partition(";")[0]
        if name == "..":
            del kept[-1:]
        elif name not in {"", "."}:
            kept.append(name)
    return "/" + "/".join(kept)


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=60))
def test_readings_hold_the_raw_path_and_end(path: str) -> None:
    with contextlib.suppress(AmbiguousPathError):
        assert path in readings("/" + path) or "/" + path in readings("/" + path)


@given(st.text(st.characters(codec="ascii"), max_size=30), st.integers(min_value=0, max_value=6))
def test_decoding_goes_to_the_end(text: str, rounds: int) -> None:
    wrapped = text.replace("%", "")
    for _ in range(rounds):
        wrapped = quote(wrapped)
    assert fully_decoded(wrapped) == text.replace("%", "").lower()


PUSHES = [
    ("/r.git/git-receive-pack", ""),
    ("/git-receive-pack", ""),
    ("/r/GIT-RECEIVE-PACK", ""),
    ("/r/git%2Dreceive%2dpack", ""),
    ("/r/git%252Dreceive-pack", ""),
    ("/r/git-receive-pack/", ""),
    ("/r/git-receive-pack//", ""),
    ("/r/git-receive-pack/.", ""),
    ("/r/git-receive-pack/x/..", ""),
    ("/r/git-receive-pack;a=b", ""),
    ("/r/git-receive-pack%3Fx", ""),
    ("/r/git-receive-pack%00.html", ""),
    ("/r/git-receive-pack%20", ""),
    ("/r\\git-receive-pack", ""),
    ("/r/info/refs", "service=git-receive-pack"),
    ("/r/info/refs", "a=b&service=git-receive-pack&c"),
    ("/r/info/refs", "a=b;service=git-receive-pack"),
    ("/r/info/refs", "service=git%2Dreceive%2Dpack"),
    ("/r/info/refs", "%73ervice=git-receive-pack"),
    ("/r/info/refs", "service=GIT-receive-PACK"),
    ("/r/info/refs", "service=git-upload-pack&service=git-receive-pack"),
    ("/r/INFO/Refs/", "service=git-receive-pack"),
    ("/r/info/./refs", "service=git-receive-pack"),
    ("/r/info//refs", "service=git-receive-pack"),
    ("/r/info/refs;x", "service=git-receive-pack"),
    ("/r/info%2frefs%3fservice=git-receive-pack", ""),
]


@pytest.mark.parametrize(("path", "query"), PUSHES)
def test_pushes(path: str, query: str) -> None:
    assert is_git_push(path, query)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/r/info/refs", "service=git-upload-pack"),
        ("/r/info/refs", ""),
        ("/r/git-upload-pack", ""),
        ("/search", "q=git-receive-pack"),
        ("/docs/git-receive-pack.html", ""),
        ("/docs/git-receive-pack/options", ""),
        ("/a%20b", "x=%41"),
        ("/", ""),
        ("*", ""),
    ],
)
def test_no_pushes(path: str, query: str) -> None:
    assert not is_git_push(path, query)
