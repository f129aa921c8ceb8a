"""Why a test of a dataflow fails before its own assertions."""

from __future__ import annotations


class FlowError(Exception):
    """The dataflow cannot be tested, or one of its nodes failed."""
