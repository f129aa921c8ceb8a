"""Places dataflows on daemons, recovers them, and stores them."""

from dora_coordinator._version import __version__

__all__ = ["__version__"]
