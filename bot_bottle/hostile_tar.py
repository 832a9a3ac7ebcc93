"""Reading tar archives that a bottle made: what their headers may cost, in memory and depth, is bounded.

``tarfile`` reads a whole extended header (pax(1)) into memory however long it claims to be, keeps what a
global one says for each member that follows, and goes one call deeper for each header before a member.
A size below zero led it back to the same member for ever (CVE-2025-8194).
"""

from __future__ import annotations

import tarfile
from typing import Any

#: One extended header: a path and a link of 4 KiB each, and extended attributes, of 64 KiB each at most.
MAX_HEADER = 1 << 20
#: All extended headers of one archive.
MAX_HEADERS = 256 << 20
#: A member has at most one of each kind.
_MAX_DEPTH = 8
_NAMES = frozenset({tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})
_EXTENDED = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}) | _NAMES


class BoundedMember(tarfile.TarInfo):
    """A member of a stranger's archive; to be given as ``tarinfo=`` where one is opened.

    Reading raises ``tarfile.ReadError`` where headers are longer, more or deeper than any honest archive's,
    and for what no ``tar`` writes that is asked as ours are: headers for all members, maps of sparse files.
    """

    def _proc_member(self, archive: Any) -> tarfile.TarInfo:
        if self.type == tarfile.XGLTYPE:
            raise tarfile.ReadError("an archive from a bottle has a header for all of its members")
        if self.type == tarfile.GNUTYPE_SPARSE and self._sparse_structs[1]:  # type: ignore[attr-defined]
            raise tarfile.ReadError("an archive from a bottle has a long map of a sparse file")
        if self.type not in _EXTENDED:
            return super()._proc_member(archive)  # type: ignore[misc, no-any-return]
        total = getattr(archive, "header_bytes", 0) + self.size
        depth = getattr(archive, "header_depth", 0) + 1
        if not 0 <= self.size <= MAX_HEADER or total > MAX_HEADERS or depth > _MAX_DEPTH:
            raise tarfile.ReadError("an archive from a bottle has headers longer than is accepted")
        archive.header_bytes, archive.header_depth = total, depth
        try:
            member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        finally:
            archive.header_depth = depth - 1
        member.pax_headers = {}  # what it says of name and size stands in the member by now
        return member

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError("an archive from a bottle has a member of negative size")
        return super()._block(count)  # type: ignore[misc, no-any-return]

    def _proc_gnusparse_10(self, *_any: object) -> None:
        raise tarfile.ReadError("an archive from a bottle has a map of a sparse file")
