"""The link process: carries messages of one dataflow between this machine and the others."""

from typing import Final

LINK_NODE: Final = "dora/link"
"""Node id of the link on the node socket; users cannot choose it."""
