"""Decisions about dataflows: placement, phases, parts, completion; no I/O."""
