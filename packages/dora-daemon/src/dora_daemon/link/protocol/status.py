"""Connection state of a peer as the runner reports it."""

from __future__ import annotations

from dora_config.protocol.links import LINKS_SETTING, PeerState

_NOT_TRIED = "no connection has been tried yet"


class PeerStatus:
    """Why a peer is connected or not."""

    def __init__(self) -> None:
        self.left = False
        """Whether the peer has sent that its part has ended (BYE)."""
        self.trouble = _NOT_TRIED
        """Reason why the session is missing."""
        self.incompatible: str | None = None
        """Why the versions of the two links do not work together."""
        self.difference: str | None = None
        """Difference between the two sides' lists of streams."""
        self._was_connected = False

    def dialing(self) -> None:
        """Note that an endpoint is dialed; the reason of an earlier failure stays."""
        if self.trouble == _NOT_TRIED:
            self.trouble = "no answer yet"

    def new_run(self) -> None:
        """Handle a restart of the peer's part."""
        self.left = False
        self.incompatible = None
        self._was_connected = False

    def state(self, endpoint: str | None, *, confirmed: bool) -> tuple[PeerState, str]:
        """Return state and reason. ``endpoint``: of the session, None without one."""
        if self.left:
            return "left", ""
        if self.incompatible is not None:
            return "lost", self.incompatible
        if endpoint is None or not confirmed:
            reason = self.trouble if endpoint is None else no_answer(endpoint)
            return ("lost" if self._was_connected else "connecting"), reason
        if self.difference is not None:
            return "connecting", self.difference
        self._was_connected = True
        return "connected", ""


def other_security(machine: str, *, plain: bool) -> str:
    """Return the reason why a peer is not dialed: one of the two encrypts, the other does not."""
    theirs, ours = ("plain", "tls") if plain else ("tls", "plain")
    return (
        f'"{machine}" uses {LINKS_SETTING} {theirs}, this machine {ours}; set the same on all'
        " machines (`links` in cluster.yml, `dora daemon --links`)"
    )


def no_answer(endpoint: str) -> str:
    """Return the reason for a session on which the peer does not answer."""
    return f"{endpoint} is connected, but the link there does not answer"
