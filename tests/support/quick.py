"""Commands that must not import certain modules."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from dora_config.launcher import main
code = main(sys.argv[2:])
slow = set(sys.argv[1].split()) & set(sys.modules)
if slow:
    sys.exit(f"imported {sorted(slow)}")
sys.exit(code)
"""


LIBRARIES = (
    "websockets asyncio anyio rich psutil yaml multiprocessing encodings.idna"
    " dora_config.protocol.control dora_config.dataflow.resolved"
    " dora_daemon.process_tree.daemon_entry"
)
OF_STARTS = (
    "asyncio anyio rich psutil multiprocessing dora_config.history.entries"
    " dora_config.protocol.control dora_config.protocol.runner dora_config.protocol.links"
)
"""A start imports the models of dataflow files, and the few messages about it."""
OF_NODES = "websockets asyncio anyio rich psutil yaml multiprocessing"


def quick(*words: str, code: int = 0, without: str = LIBRARIES) -> str:
    """Run a command that must not import certain modules; return its standard output."""
    argv = [sys.executable, "-c", PROGRAM, without, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout
