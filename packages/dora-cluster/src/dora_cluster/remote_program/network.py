"""Measures the network between this machine and others."""

from __future__ import annotations

import hmac
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from dora_cluster.remote_program.protocol import RemoteProblem, send_result

ANSWER_TIMEOUT = 3.0
"""Seconds for another machine to answer."""
PINGS = 5
"""Round trips of one measurement."""
MAX_CONNECTIONS = 64
"""Connections at once to a machine that answers pings; more are closed."""


def reach(host: str, port: int) -> dict[str, Any]:
    """Connect to an address; return how long that took, or why it failed."""
    begin = time.monotonic()
    try:
        socket.create_connection((host, port), ANSWER_TIMEOUT).close()
    except OSError as error:
        return {"reached": False, "reason": _why(error)}
    return {"reached": True, "seconds": time.monotonic() - begin}


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_TIMEOUT:g} s (a firewall?)"
    return str(error.strerror or error)


def answer(ports: list[int], seconds: float, secret: str) -> dict[str, Any]:
    """Answer pings of machines that send the secret, on the first free port, for some seconds."""
    listener = _listen(ports)
    free = threading.BoundedSemaphore(MAX_CONNECTIONS)
    send_result({"port": listener.getsockname()[1]})
    deadline = time.monotonic() + seconds
    events = select.poll()
    events.register(listener, select.POLLIN)
    events.register(sys.stdout, 0)  # an error event means that the connection was closed
    with listener:
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(events.poll(left * 1000))
            if sys.stdout.fileno() in ready:
                break
            if ready:
                link, _ = listener.accept()
                if free.acquire(blocking=False):
                    threading.Thread(target=_echo, args=(link, secret, free), daemon=True).start()
                else:
                    link.close()
    return {}


def _listen(ports: list[int]) -> socket.socket:
    first, last = ports
    for port in range(first, last + 1):
        with suppress(OSError, ValueError):  # the machine may lack IPv6
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        with suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET)
    raise RemoteProblem(f"no port from {first} to {last} is free for data links")


def _echo(link: socket.socket, secret: str, free: threading.Semaphore) -> None:
    with link, suppress(OSError):
        link.settimeout(ANSWER_TIMEOUT)
        if hmac.compare_digest(_receive(link, len(secret)), secret.encode()):
            while link.recv(1):
                link.sendall(f"{time.time():020.6f}".encode())
    free.release()


def _receive(link: socket.socket, size: int) -> bytes:
    """Return ``size`` bytes; raises OSError if the connection ends before."""
    data = b""
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise OSError("the connection was closed")
        data += piece
    return data


def ping(targets: list[list[Any]], secret: str) -> dict[str, Any]:
    """Return median round trip and clock difference for each (name, host, port), or a reason.

    ``secret``: that of their ``answer``.
    """
    found: dict[str, Any] = {}

    def measure(name: str, host: str, port: int) -> None:
        try:
            found[name] = _measure(host, port, secret)
        except OSError as error:
            found[name] = {"reason": _why(error)}

    threads = [threading.Thread(target=measure, args=tuple(target)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"pings": found}


def _measure(host: str, port: int, secret: str) -> dict[str, float]:
    with socket.create_connection((host, port), ANSWER_TIMEOUT) as link:
        link.settimeout(ANSWER_TIMEOUT)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(secret.encode())
        trips = []
        for _ in range(PINGS):
            before, begin = time.time(), time.monotonic()
            link.sendall(b".")
            theirs = _receive(link, 20)
            trip = time.monotonic() - begin
            trips.append((trip, float(theirs) - before - trip / 2))
    trips.sort()
    return {"seconds": trips[len(trips) // 2][0], "clock": trips[0][1]}
