"""Placeholder docstring."""

from dora_daemon._version import __version__

__all__ = ["__version__"]
