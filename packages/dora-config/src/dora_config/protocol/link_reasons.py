"""Words in the reason of a link that fails for a cause other than a firewall; pure."""

from __future__ import annotations

from typing import Final

LINK_PROTOCOL: Final = "link protocol"
"""The versions of the two links do not work together."""
LINKS_SETTING: Final = "links:"
"""The two machines do not agree on `links`."""
