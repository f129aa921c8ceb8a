"""Zenoh with nothing of ours around it: an echo between two hosts, with sessions as links have.

What links cannot be faster than. Run as a program this is one of the two ends.
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

from dora_coordinator.authority import Authority
from dora_daemon.agent.credentials import Credentials
from dora_daemon.link.errors import CannotConnect
from dora_daemon.link.lanes import Lane, lane_for
from dora_daemon.link.outgoing import CHUNK
from dora_daemon.link.session import Session, join_address

if __name__ != "__main__":
    from .hosts import Host
    from .scenarios import percentile

PORT = 7399
SECONDS = 2.0
LIMIT = 60.0


def round_trip(size: int, hosts: tuple[Host, Host], *, secured: bool) -> dict[str, float]:
    """Time from putting a payload to holding its echo from the other host, in microseconds."""
    near, far = hosts
    with tempfile.TemporaryDirectory(prefix="dora-bench-") as name:
        folder = Path(name)
        credentials = str(_credentials(folder)) if secured else ""
        end = [sys.executable, __file__, str(size), credentials, far.address]
        log = folder / "echo.txt"
        echo = far.start([*end, "echo"], os.environ, log)
        try:
            trips = subprocess.run(
                near.command(end), capture_output=True, text=True, timeout=LIMIT, check=True
            )
        except subprocess.SubprocessError as error:
            said = getattr(error, "stderr", "") or ""
            raise RuntimeError(f"{error}: {said[-500:]} {log.read_text()[-500:]}") from error
        finally:
            echo.kill()
            echo.wait()
    microseconds = [trip / 1e3 for trip in json.loads(trips.stdout)]
    return {"p50": statistics.median(microseconds), "p99": percentile(microseconds, 99)}


def _credentials(folder: Path) -> Path:
    """Of a new authority; both ends may use them."""
    authority = Authority(folder / "authority")
    own = Credentials(folder / "credentials")
    own.store(authority.sign(own.request(), "bench"), authority.pem)
    return own.directory


def _pieces(payload: bytes) -> tuple[Lane, list[bytes]]:
    return lane_for(len(payload)), [
        payload[at : at + CHUNK] for at in range(0, len(payload), CHUNK)
    ]


def _echo(size: int, credentials: Path | None, address: str) -> None:
    session = Session.listen(address, [PORT], credentials, insecure_ok=True)
    coming: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    session.subscribe("there", lambda _, frame: coming.put(frame))
    put = session.publishers("back")[lane_for(size)]
    end = time.monotonic() + LIMIT
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            put(coming.get(timeout=left))


def _ask(size: int, credentials: Path | None, address: str) -> list[int]:
    session = _dialled(join_address(address, PORT), credentials)
    coming: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    session.subscribe("back", lambda _, frame: coming.put(frame))
    there = session.publishers("there")
    trips: list[int] = []
    lane, pieces = _pieces(os.urandom(size))
    begun = 0.0
    # The first ones wait for the subscriptions to be known at the other end.
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


def _dialled(endpoint: str, credentials: Path | None) -> Session:
    end = time.monotonic() + 15
    while True:
        try:
            return Session.dial(endpoint, credentials)
        except CannotConnect:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def main() -> None:
    size, folder, address = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    credentials = Path(folder) if folder else None
    if sys.argv[4:] == ["echo"]:
        _echo(size, credentials, address)
    else:
        print(json.dumps(_ask(size, credentials, address)), flush=True)
    os._exit(0)  # threads of Zenoh keep an interpreter from ending


if __name__ == "__main__":
    main()
