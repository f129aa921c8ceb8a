"""Messages of the control plane; one module per wire or subject."""

from __future__ import annotations

from typing import Final

VERSION: Final = (1, 0)
"""Major and minor version of the control plane's messages."""
