"""The link process of a dataflow, started by its runner: see `protocol.messages` for arguments."""

from __future__ import annotations

import os
import sys

import dora_config.quick_imports  # noqa: F401
from dora_daemon.link.process import run_link

if __name__ == "__main__":
    socket, incarnation, carrier = sys.argv[1:]
    code = run_link(socket, int(incarnation), int(carrier))
    sys.stderr.flush()
    # Zenoh's threads may still use the interpreter: do not finalize it.
    os._exit(code)
