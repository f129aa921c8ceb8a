"""End the process when one of its threads fails, so that the runner starts another link.

Otherwise a stream would stop without a report.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

FAILED = 3
"""Exit code of a link after a thread failed."""


def guarded(run: Callable[[], None], note: Callable[[str], None]) -> Callable[[], None]:
    """Wrap the target of a thread."""

    def guard() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - no thread may end unnoticed
            traceback.print_exc()
            note(f"the link failed and restarts: {type(error).__name__}: {error}")
            os._exit(FAILED)

    return guard
