"""The link process of a dataflow, started by its runner."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys

import dora_config.quick_imports  # noqa: F401
from dora_daemon.link.errors import LinkProcessError
from dora_daemon.link.io.session import silence
from dora_daemon.link.process import Link
from dora_daemon.link.protocol.messages import Failed, encode


def main() -> int:
    """Run the link of a runner; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dora_daemon.link", description=__doc__)
    parser.add_argument("--socket", required=True, help="path of the runner's node socket")
    parser.add_argument("--incarnation", required=True, type=int, help="the link's incarnation")
    parser.add_argument("--carrier", required=True, type=int, help="descriptor of a socketpair")
    given = parser.parse_args()
    # The runner ends the link; an interrupt at the terminal is for the runner.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence()
    carrier = socket.socket(fileno=given.carrier)
    try:
        return Link(carrier, given.socket, given.incarnation).run()
    except LinkProcessError as error:
        try:
            carrier.sendall(encode(Failed(reason=str(error))))
        except OSError:
            print(f"dora link: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Zenoh's threads may still use the interpreter: do not finalize it.
    os._exit(code)
