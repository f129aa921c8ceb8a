"""The link process: messages of one dataflow between this machine and the others.

`messages` is what the runner and the link tell each other; everything else is the link's own.
"""

from typing import Final

LINK_NODE: Final = "dora/link"
"""The link's name on the node socket; no node of a user can have it."""
