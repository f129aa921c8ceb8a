"""How a process of ours starts another one: with the same Python, and no more on its path."""

from __future__ import annotations

import sys


def run_module(module: str) -> tuple[str, ...]:
    """The words before a module's arguments.

    Never the working directory, which is a user's; and nothing of PYTHONPATH or of the user's own
    packages when we were started so (``-I``), as the tree that `dora cluster` puts on machines is.
    """
    return (sys.executable, "-I" if sys.flags.isolated else "-P", "-m", module)
