"""Zenoh with nothing of ours around it: an echo and a stream between two hosts.

What links cannot be faster than. Each message is one put, and an echo is sent once the message is
complete. Run as a program this is one of the two ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import time
from pathlib import Path

from dora_daemon.link.protocol.priority import Priority, priority_for

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from measure.zenoh_ends import LIMIT, SECONDS, arguments, dial, listen
else:
    from . import zenoh_ends
    from .hosts import Host
    from .zenoh_ends import LIMIT, SECONDS, run_ends


def round_trip(size: int, hosts: tuple[Host, Host], *, secured: bool) -> dict[str, float]:
    """Time from putting a payload to holding its echo from the other host, in microseconds."""
    return zenoh_ends.round_trip(Path(__file__), size, hosts, secured=secured, what="echo")


def stream(size: int, hosts: tuple[Host, Host], *, secured: bool) -> dict[str, float]:
    """What arrives at the other host when messages are put without a pause."""
    nbytes, nanoseconds = run_ends(Path(__file__), size, hosts, secured=secured, what="count")
    return {"messages": 1e9 * nbytes / size / nanoseconds, "volume": nbytes / nanoseconds}


def _echo(size: int, credentials: Path | None, address: str) -> None:
    session = listen(credentials, address)
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    session.subscribe("there", lambda _, frame: received.put(frame))
    put = session.publishers("back")[priority_for(size)]
    end = time.monotonic() + LIMIT
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            put(received.get(timeout=left))


def _measure_trips(size: int, credentials: Path | None, address: str) -> list[int]:
    session = dial(credentials, address)
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    session.subscribe("back", lambda _, frame: received.put(frame))
    put = session.publishers("there")[priority_for(size)]
    trips: list[int] = []
    payload = os.urandom(size)
    begun = 0.0
    # The first ones wait for the subscriptions to be known at the other end.
    while not trips or time.monotonic() - begun < SECONDS:
        start = time.perf_counter_ns()
        put(payload)
        try:
            received.get(timeout=LIMIT if trips else 0.5)
        except queue.Empty:
            continue
        trips.append(time.perf_counter_ns() - start)
        begun = begun or time.monotonic()
    return trips[len(trips) // 20 :]


def _count(size: int, credentials: Path | None, address: str) -> None:
    """Send back, now and then, how many bytes have arrived and in which time."""
    session = listen(credentials, address)
    counted: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    session.subscribe("there", lambda _, frame: counted.put((len(frame), time.monotonic_ns())))
    report = session.publishers("back")[Priority.SMALL]
    total = begun = 0
    reported = 0
    while True:
        nbytes, now = counted.get()
        if begun:
            total += nbytes
        begun = begun or now
        if total - reported >= max(size, 65536):
            reported = total
            report(json.dumps([total, now - begun]).encode())


def _flood(size: int, credentials: Path | None, address: str) -> list[int]:
    session = dial(credentials, address)
    reports: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    session.subscribe("back", lambda _, frame: reports.put(frame))
    put = session.publishers("there")[priority_for(size)]
    payload = os.urandom(size)
    last = b""
    end = time.monotonic() + LIMIT / 2
    # The first ones wait for the subscriptions to be known at the other end.
    while time.monotonic() < end:
        put(payload)
        with contextlib.suppress(queue.Empty):
            while True:
                report = reports.get_nowait()
                end = end if last else time.monotonic() + SECONDS
                last = report
    numbers: list[int] = json.loads(last)
    return numbers


def main() -> None:
    size, credentials, address, what, far = arguments()
    if far:
        (_echo if what == "echo" else _count)(size, credentials, address)
    else:
        near = _measure_trips if what == "echo" else _flood
        print(json.dumps(near(size, credentials, address)), flush=True)
    os._exit(0)  # threads of Zenoh keep an interpreter from ending


if __name__ == "__main__":
    main()
