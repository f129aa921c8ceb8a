"""Command lines for starting further processes of dora."""

from __future__ import annotations

import sys


def run_module(module: str) -> tuple[str, ...]:
    """Return the words before a module's arguments, with the same Python.

    The working directory is never on its path. An isolated process (``-I``), such as one installed
    by `dora cluster`, starts isolated processes.
    """
    return (sys.executable, "-I" if sys.flags.isolated else "-P", "-m", module)
