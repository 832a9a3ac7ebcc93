"""Fuzzed as well: what a bottle or a repository wrote and the host or the sidecar reads, egress aside."""

from __future__ import annotations

import io
import json
from pathlib import Path

from bot_bottle.egress import dns
from bot_bottle.egress.frames import Begin, End, FrameError, FrameReader, Payload, frame
from bot_bottle.errors import ManifestError, UsageError
from bot_bottle.git_gate.commands import CommandError, is_ref_name, parse_commands
from bot_bottle.git_gate.pktline import PktLineError, packet, packets
from bot_bottle.manifest.build import agent_from_text
from bot_bottle.pipelock.unpack import FREE_BYTES, MAX_RATIO, OpaqueError, unpacker
from bot_bottle.retrieval.archive import ArchiveTree
from bot_bottle.retrieval.history import read_refs
from bot_bottle.retrieval.tree import is_below
from bot_bottle.supervise.request import KINDS, AgentRequest, RequestError, read_request
from tests.fuzz.checks import cut, require

# WebSocket frames: pieces do not matter, and what is written again reads as it did.


def _frames(pieces: list[bytes], *, masked: bool) -> tuple[list[tuple[Begin, bytes]], bool]:
    reader = FrameReader(masked=masked)
    whole: list[tuple[Begin, bytes]] = []
    begun: Begin | None = None
    content = b""
    try:
        for piece in pieces:
            for event in reader.feed(piece):
                match event:
                    case Begin():
                        begun, content = event, b""
                    case Payload(data):
                        content += data
                    case End():
                        require(
                            begun is not None and len(content) == begun.length, "a frame of another length"
                        )
                        whole.append((begun, content))  # type: ignore[arg-type]  # as was required
    except FrameError:
        return whole, False
    return whole, True


def frames(data: bytes) -> None:
    """One direction of a WebSocket, the first byte telling whose, and how large its pieces are."""
    first, stream = (data[0], data[1:]) if data else (0, b"")
    masked = bool(first & 1)
    at_once, clean = _frames([stream], masked=masked)
    in_pieces, clean_too = _frames(cut(stream, first // 2 % 16 + 1), masked=masked)
    require((at_once, clean) == (in_pieces, clean_too), "pieces matter")
    key = b"\1\2\3\4" if masked else b""
    written = b"".join(frame(one.opcode, body, final=one.final, key=key) for one, body in at_once)
    again, clean = _frames([written], masked=masked)
    require(clean and again == at_once, "what was written reads differently")


def names(data: bytes) -> None:
    """A DNS message: answered with ourselves, or not at all, and nothing that was asked goes on."""
    answer = dns.answer(data)
    if answer is None:
        return
    wire = answer.wire
    require(wire[:2] == data[:2] and wire[2] & 0x80, "an answer to another question")
    require(len(wire) <= len(data) + 64, "an answer that makes much of little")
    require(answer.name.isascii() and answer.name.isprintable(), "a name that breaks a line")
    count = int.from_bytes(wire[6:8], "big")
    if count:
        ours = wire.find(b"\x7f\0\0\1") >= 0 or wire.find(bytes(15) + b"\1") >= 0
        require(count == 1 and ours, "an answer that is not ours")


def push(data: bytes) -> None:
    """What a push begins with: pkt-lines, and the commands in them."""
    try:
        lines = list(packets(data))
    except PktLineError:
        return
    written = b"".join(b"0000" if line is None else packet(line) for line in lines)
    require(list(packets(written)) == lines, "what was written reads differently")
    try:
        asked = parse_commands([line for line in lines if line is not None])
    except CommandError as error:
        require(str(error).isprintable(), "an error that breaks a terminal")
        return
    require(len({command.ref for command in asked.commands}) == len(asked.commands), "a ref twice")
    for command in asked.commands:
        require(is_ref_name(command.ref) and ".." not in command.ref, "a ref that is no name")
        require(command.action in {"create", "update", "delete"}, "a command that is none")


def agents(data: bytes) -> None:
    """An agent's file in a repository that nobody looked at."""
    path = Path("/nowhere/agents/fuzzed.md")
    try:
        agent = agent_from_text("fuzzed", path, data.decode("utf-8", "replace"), "repository")
    except ManifestError as error:
        require(str(error), "an error without a word")
        return
    require(agent.name == "fuzzed" and agent.path == path, "another agent")


def asks(data: bytes) -> None:
    """The arguments of an agent's request, as JSON."""
    try:
        arguments = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(arguments, dict):
        return
    for kind in KINDS:
        try:
            asked = read_request(kind, arguments, new_id="aaaaaaaa", now=0)
        except RequestError:
            continue
        record = json.loads(json.dumps(asked.to_record()))
        require(AgentRequest.from_record(record) == asked, "what was recorded reads differently")
        require(len(asked.summary) < 65536 and "\n" not in asked.summary, "a summary of more than a line")
        for text in (asked.reason, asked.summary, asked.host, *asked.paths, *asked.refs):
            shown = text.replace("\n", "")
            require(shown.isprintable(), "a text that breaks a terminal")


def workspace(data: bytes) -> None:
    """The archive of a workspace, as a bottle left it."""
    try:
        tree = ArchiveTree(io.BytesIO(data), "workspace")
        entries = list(tree.entries())
        refs = read_refs(tree)
    except UsageError:
        return
    for entry in entries:
        require(is_below(entry.path.split(b"/")), "a path that climbs")
        require(tree.kind(entry.path) in {"file", "link"}, "a kind that its entry has not")
    if refs is not None:
        require(all(is_ref_name(f"refs/heads/{name}") for name in refs.branches), "a branch that is no name")


_CODINGS = ("gzip", "deflate", "br", "zstd", "gzip, br")


def packed(data: bytes) -> None:
    """A compressed body, the first byte telling how it claims to be and how large its pieces are."""
    first, stream = (data[0], data[1:]) if data else (0, b"")
    given: list[bytes | None] = []
    for pieces in ([stream], cut(stream, first // 8 + 1)):
        opened = unpacker(_CODINGS[first % len(_CODINGS)])
        require(opened is not None, "a coding that nobody knows")
        out = b""
        try:
            for piece in pieces:
                out += opened.feed(piece)  # type: ignore[union-attr]  # as was required
            out += opened.finish()  # type: ignore[union-attr]
        except OpaqueError:
            given.append(None)
        else:
            given.append(out)
            require(len(out) <= max(FREE_BYTES, MAX_RATIO * MAX_RATIO * len(stream)) * 2, "a bomb went off")
    # That a broken frame is known for one may hang on its pieces; what is read of one that is not may not.
    require(None in given or given[0] == given[1], "pieces matter")
