"""Process, pipe, relay, Zenoh, relay, pipe, process: a link that does nothing.

All of them sleep between messages. A relay reads a message from its pipe and puts it, and its
subscriber's callback writes to the other pipe. Run as a program this is one host: the relay, with
the measuring or the answering process as its child.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dora_daemon.link.protocol.priority import priority_for

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from measure.zenoh_ends import SECONDS, arguments, dial, listen
else:
    from . import zenoh_ends
    from .hosts import Host


def round_trip(size: int, hosts: tuple[Host, Host], *, secured: bool) -> dict[str, float]:
    """Time from writing a payload to holding its echo from the other host, in microseconds."""
    return zenoh_ends.round_trip(Path(__file__), size, hosts, secured=secured, what="relay")


def _read(descriptor: int, size: int) -> bytes:
    """Read exactly ``size`` bytes; ends the process at end-of-file."""
    data = os.read(descriptor, size)
    while len(data) < size:
        more = os.read(descriptor, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def _write(descriptor: int, data: bytes) -> None:
    sent = os.write(descriptor, data)
    while sent < len(data):
        sent += os.write(descriptor, data[sent:])


def _answer(size: int, source: int, sink: int) -> None:
    while True:
        _write(sink, _read(source, size))


def _measure(size: int, source: int, sink: int) -> None:
    payload = os.urandom(size)
    trips = []
    _write(sink, payload)
    _read(source, size)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        start = time.perf_counter_ns()
        _write(sink, payload)
        _read(source, size)
        trips.append(time.perf_counter_ns() - start)
    print(json.dumps(trips[len(trips) // 20 :]), flush=True)


def main() -> None:
    size, credentials, address, _, far = arguments()
    out_read, out_write = os.pipe()
    in_read, in_write = os.pipe()
    child = os.fork()
    if child == 0:
        (_answer if far else _measure)(size, in_read, out_write)
        os._exit(0)
    session = (listen if far else dial)(credentials, address)
    ours, theirs = ("back", "there") if far else ("there", "back")
    connected = threading.Event()

    def receive(frame: bytes) -> None:
        if len(frame) == size:
            _write(in_write, frame)
        else:
            connected.set()

    session.subscribe(theirs, lambda _, frame: receive(frame))
    put = session.publishers(ours)[priority_for(size)]
    # Until the subscriptions are known at both ends.
    while not connected.wait(0.05):
        put(b"")
    put(b"")
    threading.Thread(target=_relay, args=(size, out_read, put), daemon=True).start()
    os.waitpid(child, 0)
    os._exit(0)


def _relay(size: int, source: int, put: Callable[[bytes], None]) -> None:
    while True:
        put(_read(source, size))


if __name__ == "__main__":
    main()
