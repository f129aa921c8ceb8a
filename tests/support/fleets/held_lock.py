"""The lock of a machine, held by the program that `dora cluster` runs there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INFO = {"key": "1", "operator": "ada@desk", "command": "dora cluster upgrade fleet.yml", "pid": 7}
LEASE = 600.0
HOLD = """
import json, sys
from dora_cluster.remote_program.lock import acquire
acquire(*json.loads(sys.argv[1]))
"""


@contextmanager
def held_lock() -> Iterator[int]:
    """Hold the lock for the block; yield the process id of the holder."""
    words = [sys.executable, "-c", HOLD, json.dumps([INFO, False, LEASE])]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        assert b'"held": true' in program.stdout.readline()
        yield program.pid
        program.stdin.close()
