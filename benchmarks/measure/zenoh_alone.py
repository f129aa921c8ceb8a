"""Zenoh without nodes and links: an echo and a stream between two hosts, with sessions as of links.

An upper bound for the speed of links. Run as a program, this is one of the two ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dora_coordinator.io.authority import Authority
from dora_daemon.agent.credentials import Credentials
from dora_daemon.link.errors import CannotConnect
from dora_daemon.link.io.connect_errors import join_address
from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.protocol.priority import Priority, priority_for
from dora_daemon.link.streams.sender import CHUNK

if __name__ != "__main__":
    from .hosts import Host
    from .scenarios import percentile

PORT = 7399
SECONDS = 2.0
LIMIT = 60.0


def round_trip(size: int, hosts: tuple[Host, Host], *, secured: bool) -> dict[str, float]:
    """Measure the time from a put to its echo from the other host, in microseconds."""
    trips = [nanoseconds / 1e3 for nanoseconds in _run(size, hosts, secured, "echo")]
    return {"p50": statistics.median(trips), "p99": percentile(trips, 99)}


def stream(size: int, hosts: tuple[Host, Host], *, secured: bool) -> dict[str, float]:
    """Measure the throughput to the other host, in GB/s."""
    [nbytes, nanoseconds] = _run(size, hosts, secured, "count")
    return {"volume": nbytes / nanoseconds}


def _run(size: int, hosts: tuple[Host, Host], secured: bool, what: str) -> list[int]:
    near, far = hosts
    with tempfile.TemporaryDirectory(prefix="dora-bench-") as name:
        folder = Path(name)
        credentials = str(_credentials(folder)) if secured else ""
        end = [sys.executable, __file__, str(size), credentials, far.address, what]
        log = folder / "far.txt"
        other = far.start([*end, "far"], os.environ, log)
        try:
            done = subprocess.run(
                near.command(end), capture_output=True, text=True, timeout=LIMIT, check=True
            )
        except subprocess.SubprocessError as error:
            stderr = getattr(error, "stderr", "") or ""
            raise RuntimeError(f"{error}: {stderr[-500:]} {log.read_text()[-500:]}") from error
        finally:
            other.kill()
            other.wait()
    numbers: list[int] = json.loads(done.stdout)
    return numbers


def _credentials(folder: Path) -> Path:
    """Create credentials of a new authority, for both ends."""
    authority = Authority(folder / "authority")
    own = Credentials(folder / "credentials")
    own.store(authority.sign(own.request(), "bench"), authority.pem)
    return own.directory


def _pieces(payload: bytes) -> tuple[Priority, list[bytes]]:
    return priority_for(len(payload)), [
        payload[at : at + CHUNK] for at in range(0, len(payload), CHUNK)
    ]


def _echo(size: int, credentials: Path | None, address: str) -> None:
    session = LinkSession.listen(address, [PORT], credentials, insecure_ok=True)
    coming: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    session.subscribe("there", lambda _, frame: coming.put(frame))
    put = session.publishers("back")[priority_for(size)]
    end = time.monotonic() + LIMIT
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            put(coming.get(timeout=left))


def _ping(size: int, credentials: Path | None, address: str) -> list[int]:
    session = _dialled(join_address(address, PORT), credentials)
    coming: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    session.subscribe("back", lambda _, frame: coming.put(frame))
    there = session.publishers("there")
    trips: list[int] = []
    lane, pieces = _pieces(os.urandom(size))
    begun = 0.0
    # The first ones are lost until the subscriptions have arrived at the other end.
    while not trips or time.monotonic() - begun < SECONDS:
        start = time.perf_counter_ns()
        for piece in pieces:
            there[lane](piece)
        try:
            for _ in pieces:
                coming.get(timeout=0.5 if not trips else LIMIT)
        except queue.Empty:
            continue
        trips.append(time.perf_counter_ns() - start)
        begun = begun or time.monotonic()
    return trips[len(trips) // 20 :]


def _count(size: int, credentials: Path | None, address: str) -> None:
    """Send back the number of received bytes and the time since the first message."""
    session = LinkSession.listen(address, [PORT], credentials, insecure_ok=True)
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
        if total - reported >= size:
            reported = total
            report(json.dumps([total, now - begun]).encode())


def _flood(size: int, credentials: Path | None, address: str) -> list[int]:
    session = _dialled(join_address(address, PORT), credentials)
    reports: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    session.subscribe("back", lambda _, frame: reports.put(frame))
    there = session.publishers("there")
    lane, pieces = _pieces(os.urandom(size))
    last = b""
    end = time.monotonic() + LIMIT / 2
    # The first ones are lost until the subscriptions have arrived at the other end.
    while time.monotonic() < end:
        for piece in pieces:
            there[lane](piece)
        with contextlib.suppress(queue.Empty):
            while True:
                newest = reports.get_nowait()
                end = end if last else time.monotonic() + SECONDS
                last = newest
    numbers: list[int] = json.loads(last)
    return numbers


def _dialled(endpoint: str, credentials: Path | None) -> LinkSession:
    end = time.monotonic() + 15
    while True:
        try:
            return LinkSession.dial(endpoint, credentials)
        except CannotConnect:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def main() -> None:
    size, folder, address, what = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    credentials = Path(folder) if folder else None
    if sys.argv[5:] == ["far"]:
        (_echo if what == "echo" else _count)(size, credentials, address)
    else:
        near = _ping if what == "echo" else _flood
        print(json.dumps(near(size, credentials, address)), flush=True)
    os._exit(0)  # threads of Zenoh keep an interpreter from ending


if __name__ == "__main__":
    main()
