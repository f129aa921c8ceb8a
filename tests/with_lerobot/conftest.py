"""LeRobot's own scripts; in an environment that `nox -s lerobot` makes."""

from __future__ import annotations

import os

PYTHON = "DORA_TESTS_LEROBOT"
"""Set by ``nox -s lerobot``: the interpreter of an environment with LeRobot."""

collect_ignore_glob = [] if os.environ.get(PYTHON) else ["test_*.py"]
