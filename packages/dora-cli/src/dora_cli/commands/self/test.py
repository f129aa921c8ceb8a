"""`dora self test`."""

from __future__ import annotations

import sys

from dora_cli import output
from dora_cli._version import __version__


def main() -> None:
    """Run a test dataflow on two temporary daemons; exit code 1 if it fails."""
    from dora_cli import self_test

    self_test.run()
    output.write(f"dora {__version__} works, with {sys.executable}")
