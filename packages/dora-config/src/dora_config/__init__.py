"""Placeholder docstring."""

from dora_config._version import __version__

__all__ = ["__version__"]
