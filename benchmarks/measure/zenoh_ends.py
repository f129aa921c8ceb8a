"""Two programs with a Zenoh session each, set up as those of links, on two hosts."""

from __future__ import annotations

import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dora_config.access import address_text
from dora_config.machine_identity import key_digest
from dora_coordinator.io.authority import Authority
from dora_daemon.agent.credentials import Credentials
from dora_daemon.link.errors import CannotConnect
from dora_daemon.link.io.session import LinkSession

if __name__ != "__main__":
    from .hosts import Host

PORT = 7399
SECONDS = 2.0
LIMIT = 60.0


def run_ends(
    program: Path, size: int, hosts: tuple[Host, Host], *, secured: bool, what: str
) -> Any:
    """Run ``program SIZE CREDENTIALS ADDRESS WHAT [far]`` on each host; return what the near one
    prints. Raises RuntimeError."""
    near, far = hosts
    with tempfile.TemporaryDirectory(prefix="dora-bench-") as name:
        folder = Path(name)
        credentials = str(_credentials(folder)) if secured else ""
        end = [sys.executable, str(program), str(size), credentials, far.address, what]
        log = folder / "far.txt"
        other = far.start([*end, "far"], os.environ, log)
        try:
            done = subprocess.run(
                near.command(end), capture_output=True, text=True, timeout=LIMIT, check=True
            )
        except subprocess.SubprocessError as error:
            printed = getattr(error, "stderr", "") or ""
            raise RuntimeError(f"{error}: {printed[-500:]} {log.read_text()[-500:]}") from error
        finally:
            far.kill_all()
            other.wait()
    return json.loads(done.stdout)


def round_trip(
    program: Path, size: int, hosts: tuple[Host, Host], *, secured: bool, what: str
) -> dict[str, float]:
    """As `run_ends`, for a near end that prints round trips in nanoseconds; return microseconds."""
    from .scenarios import percentile

    measured = run_ends(program, size, hosts, secured=secured, what=what)
    trips = [nanoseconds / 1e3 for nanoseconds in measured]
    return {"p50": statistics.median(trips), "p99": percentile(trips, 99)}


def _credentials(folder: Path) -> Path:
    """Credentials of a new authority; both ends may use them."""
    authority = Authority(folder / "authority")
    own = Credentials(folder / "credentials")
    digest = key_digest(base64.b64decode(own.public_key))
    own.store(authority.sign(own.request(), "bench", digest), authority.pem)
    return own.directory


def listen(credentials: Path | None, address: str) -> LinkSession:
    """Open the far end's session."""
    return LinkSession.listen(address, [PORT], credentials, insecure_ok=True)


def dial(credentials: Path | None, address: str) -> LinkSession:
    """Open the near end's session, once the far end listens."""
    end = time.monotonic() + 15
    while True:
        try:
            return LinkSession.dial(address_text(address, PORT), credentials)
        except CannotConnect:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def arguments() -> tuple[int, Path | None, str, str, bool]:
    """Return size, credentials, address, what to do, and whether this is the far end."""
    size, folder, address, what, *far = sys.argv[1:]
    return int(size), Path(folder) if folder else None, address, what, far == ["far"]
