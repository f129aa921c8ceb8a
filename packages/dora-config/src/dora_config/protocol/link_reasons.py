"""Words in the reason of a link that fails for a cause other than a firewall; pure."""

from __future__ import annotations

from typing import Final

WRONG_CLOCK: Final = "wrong clock"
"""A certificate is not valid at the time of one of the two machines: do not suggest a firewall."""
LINKS_SETTING: Final = "links:"
"""The two machines do not agree on `links`."""
