"""State of the TCP connections of a Zenoh session, as the kernel reports it.

Zenoh does not pass its sockets on, but their addresses, by which they are found among the
descriptors of this process. They are only read.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from dora_daemon.link.protocol.path_queue import TcpState

_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_PORT: Final = re.compile(r":(\d+)(?:[?#]|$)")
_INFO: Final = struct.Struct("=16xI4xIIII28xI48xQ16xI52xQQ")
"""The fields of `struct tcp_info` that are read."""


class TcpConnection(NamedTuple):
    """A socket of this process, which Zenoh may close at any time."""

    descriptor: int
    inode: int
    """Inode of the socket, which identifies it: the kernel reuses descriptors at once."""


def read(connection: TcpConnection) -> TcpState:
    """Return the state of a connection.

    Raises OSError if it was closed, also if its descriptor is that of another socket now, and if
    the kernel lacks a field.
    """
    opened = socket.socket(fileno=connection.descriptor)
    try:
        found = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    finally:
        opened.detach()
    # After the read: a closed socket does not come back.
    if os.fstat(connection.descriptor).st_ino != connection.inode:
        raise OSError("the connection was closed, and its descriptor is reused")
    if len(found) < _INFO.size:
        raise OSError("this kernel is older than Linux 4.19")
    size, unacked, sacked, lost, again, rtt, acknowledged, unsent, sent, repeated = _INFO.unpack(
        found
    )
    return TcpState(
        arrived=acknowledged + sacked * size,
        flying=max(0, unacked - sacked - lost + again) * size,
        unsent=unsent,
        written=sent - repeated + unsent,
        rtt_ns=rtt * 1000,
    )


def ports_of(source: str, destination: str) -> tuple[int, int] | None:
    """Return the local and the remote port of two locators such as ``tls/10.0.0.7:7450``."""
    found = [_PORT.search(locator) for locator in (source, destination)]
    if found[0] is None or found[1] is None:
        return None
    return int(found[0][1]), int(found[1][1])


def connection_of(ports: tuple[int, int]) -> TcpConnection | None:
    """Return this process's connection with these ports."""
    for connection in _sockets():
        with suppress(OSError):
            opened = socket.socket(fileno=connection.descriptor)
            try:
                tcp = opened.family in (socket.AF_INET, socket.AF_INET6)
                if tcp and (opened.getsockname()[1], opened.getpeername()[1]) == ports:
                    return connection
            finally:
                opened.detach()
    return None


def _sockets() -> Iterator[TcpConnection]:
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if found := _SOCKET.fullmatch(str(entry.readlink())):
                yield TcpConnection(int(entry.name), int(found[1]))
