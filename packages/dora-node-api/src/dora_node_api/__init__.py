"""Write dora nodes in Python."""

from dora_node_api._version import __version__

__all__ = ["__version__"]
