"""Times of files on machines whose clock may be wrong: a robot without a battery starts in 1970."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

EARLIEST: Final = 1_704_067_200.0
"""2024-01-01. No file of ours is older: an earlier time comes from a clock that was wrong."""
DAY: Final = 24 * 3600.0


def last_change(path: Path, now: float) -> float:
    """Time of the last change of ``path``, Unix time; raises OSError.

    A time that a right clock cannot have set is replaced by ``now`` in the file too: its age
    counts from here on, so that a corrected clock expires nothing early and nothing never.
    """
    changed = path.stat().st_mtime
    if EARLIEST <= changed <= now + DAY:
        return changed
    os.utime(path, (now, now))
    return now
