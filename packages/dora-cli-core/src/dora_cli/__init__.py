"""The dora command line, except `dora daemon` and `dora coordinator`."""

from dora_cli._version import __version__

__all__ = ["__version__"]
