"""The plug-in of `dora cluster`: a cluster of machines, controlled over SSH from one of them."""

from dora_cluster._version import __version__

__all__ = ["__version__"]
