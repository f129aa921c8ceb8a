"""The agent of one machine, the runners of its dataflows, and their links and builds."""

from dora_daemon._version import __version__

__all__ = ["__version__"]
