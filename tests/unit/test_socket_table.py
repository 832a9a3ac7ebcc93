"""Who owns a connection on loopback and who listens there, as the kernel's table says it (proc(5))."""

from __future__ import annotations

import os
import socket

from bot_bottle.socket_table import holds, listeners, owner_of, read_table

_TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 100 1 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 101 1 0
   2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 102 1 0
"""


def test_the_owner_is_that_of_the_clients_end_and_not_of_ours() -> None:
    assert owner_of(_TABLE, ("127.0.0.1", 50000), ("127.0.0.1", 8080)) == 1001
    assert owner_of(_TABLE, ("127.0.0.1", 8080), ("127.0.0.1", 50000)) == 1000


def test_a_connection_that_is_not_listed_has_no_owner() -> None:
    assert owner_of(_TABLE, ("127.0.0.1", 50001), ("127.0.0.1", 8080)) is None
    assert owner_of("", ("127.0.0.1", 50000), ("127.0.0.1", 8080)) is None


def test_the_kernels_own_table_is_read() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as here,
    ):
        table = read_table()
        assert owner_of(table, client.getsockname(), here.getsockname()) == os.getuid()
        (inode,) = listeners(table, listener.getsockname())
        assert inode == os.fstat(listener.fileno()).st_ino
        assert holds(os.getpid(), inode)
        assert not holds(os.getppid(), inode)
        assert not holds(0, inode)
    assert listeners(read_table(), ("127.0.0.1", 0)) == ()


def test_only_what_listens_at_the_very_place_counts() -> None:
    assert listeners(_TABLE, ("127.0.0.1", 8080)) == (100,)
    assert listeners(_TABLE, ("127.0.0.1", 50000)) == ()
    assert listeners(_TABLE, ("0.0.0.0", 8080)) == ()
    assert listeners("", ("127.0.0.1", 8080)) == ()
