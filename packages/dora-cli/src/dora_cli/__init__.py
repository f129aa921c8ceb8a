"""Placeholder docstring."""

from dora_cli._version import __version__

__all__ = ["__version__"]
