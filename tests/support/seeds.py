"""Seeds of random histories that only ``nox -s slow`` runs, or a tenth of them."""

from __future__ import annotations

import os


def chunks(first: int, end: int) -> list[range]:
    """Return the seeds in twenty ranges; with DORA_TESTS_TENTH (0 to 9) two of these."""
    size = -(-(end - first) // 20)
    found = [range(one, min(end, one + size)) for one in range(first, end, size)]
    tenth = os.environ.get("DORA_TESTS_TENTH")
    return found if tenth is None else found[int(tenth) :: 10]
