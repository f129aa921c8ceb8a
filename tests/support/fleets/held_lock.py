"""The lock of a machine, held as by the program that `dora cluster` runs there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INFO = {"key": "1", "operator": "ada@desk", "command": "dora cluster upgrade fleet.yml", "pid": 7}
_HOLD = """
import fcntl, json, os, sys, time
from dora_daemon.agent.sampler import lock_file
lock_file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
with lock_file().open("w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    facts = json.loads(sys.argv[1]) | {"since": time.time(), "holder": os.getpid()}
    print(json.dumps({"result": facts}), file=file, flush=True)
    print('{"held": true}', flush=True)
    sys.stdin.read()
lock_file().unlink()
"""


@contextmanager
def held_lock(program: str = _HOLD) -> Iterator[int]:
    """Hold the lock for the block, with this program; yield its process id."""
    words = [sys.executable, "-c", program, json.dumps(INFO)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert b'"held": true' in holder.stdout.readline()
        yield holder.pid
        holder.stdin.close()
