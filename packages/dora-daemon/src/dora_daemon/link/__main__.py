"""The link process of a dataflow, started by its runner."""

from __future__ import annotations

import argparse
import os
import sys

import dora_config.quick_imports  # noqa: F401
from dora_daemon.link.process import run_link


def main() -> int:
    """Run the link of a runner; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dora_daemon.link", description=__doc__)
    parser.add_argument("--socket", required=True, help="path of the runner's node socket")
    parser.add_argument("--incarnation", required=True, type=int, help="the link's incarnation")
    parser.add_argument("--carrier", required=True, type=int, help="descriptor of a socketpair")
    given = parser.parse_args()
    return run_link(given.socket, given.incarnation, given.carrier)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Zenoh's threads may still use the interpreter: do not finalize it.
    os._exit(code)
