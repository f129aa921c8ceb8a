"""Why a test of a dataflow fails before its own assertions."""

from __future__ import annotations

from dora_config.errors import DoraError


class FlowError(DoraError):
    """The dataflow cannot be tested, or one of its nodes failed."""
