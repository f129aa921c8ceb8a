"""How long changes wait for nodes that hold updates; imported by commands that import no models."""

from typing import Final

HOLD_LIMIT: Final = 300.0
"""Default of the seconds to wait."""
