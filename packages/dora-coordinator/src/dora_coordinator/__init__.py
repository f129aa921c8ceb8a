"""Places dataflows on daemons, watches over them, remembers them; holds no code of its own."""

from dora_coordinator._version import __version__

__all__ = ["__version__"]
