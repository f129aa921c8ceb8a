"""The lock of a machine, held by the program that `dora cluster` runs there."""

from __future__ import annotations

from functools import partial

from support.fleets import held_lock as imitation

HOLD = """
import json, sys
from dora_cluster.remote_program.lock import acquire
acquire(json.loads(sys.argv[1]), False, 600.0)
"""

held_lock = partial(imitation.held_lock, HOLD)
