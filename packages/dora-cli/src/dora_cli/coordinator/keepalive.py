"""Detection of a coordinator whose machine is gone; imports nothing that is slow to import."""

from __future__ import annotations

import socket
from typing import Final

CONNECT_TIMEOUT: Final = 5.0
"""Seconds after which a coordinator that does not answer counts as unreachable."""


def detect_lost_peer(connection: socket.socket) -> None:
    """Let the kernel end the connection within a minute after the other machine is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 15),
        (socket.TCP_KEEPINTVL, 15),
        (socket.TCP_KEEPCNT, 3),
        (socket.TCP_USER_TIMEOUT, 60_000),  # no probes are sent while a request is unacknowledged
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
