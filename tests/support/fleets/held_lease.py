"""The lease of a machine, as the program writes it that `dora cluster` runs there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dora_daemon.agent.sampler import lease_file

INFO: dict[str, Any] = {
    "key": "1",
    "operator": "ada@desk",
    "command": "dora cluster upgrade fleet.yml",
    "pid": 7,
}


@contextmanager
def held_lease() -> Iterator[None]:
    """Hold the lease for the block."""
    lease_file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    record = INFO | {"since": time.time(), "seconds": 60.0}
    lease_file().write_text(json.dumps({"protocol": 1, "result": record}))
    try:
        yield
    finally:
        lease_file().unlink()
