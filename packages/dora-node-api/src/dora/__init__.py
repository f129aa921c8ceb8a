"""The names that ready-made dora nodes import."""

from dora_node_api._version import __version__

__all__ = ["__version__"]
