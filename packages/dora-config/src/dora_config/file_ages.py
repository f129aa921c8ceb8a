"""Ages of files on machines whose clock may be wrong, such as robots that boot in 1970."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

EARLIEST: Final = 1_704_067_200.0
"""2024-01-01; earlier times come from a wrong clock."""
DAY: Final = 24 * 3600.0


def last_change(path: Path, now: float) -> float:
    """Return the Unix time of the last change of ``path``; raise `OSError`.

    An implausible time is replaced by ``now``, also in the file, so that its age counts from the
    correction of the clock.
    """
    changed = path.stat().st_mtime
    if EARLIEST <= changed <= now + DAY:
        return changed
    os.utime(path, (now, now))
    return now
