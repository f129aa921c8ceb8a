"""A thread of the link that fails ends the process: its runner starts another, which goes on.

Without it a stream would stand still for ever, and nobody would know.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

FAILED = 3
"""Exit code of a link one of whose threads failed."""


def guarded(run: Callable[[], None], note: Callable[[str], None]) -> Callable[[], None]:
    """``run`` for a thread."""

    def guard() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, no thread may just be gone
            traceback.print_exc()
            note(f"the link failed and is started again: {type(error).__name__}: {error}")
            os._exit(FAILED)

    return guard
