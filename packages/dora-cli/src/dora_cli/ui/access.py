"""Which requests of browsers the server accepts; pure.

A link with a one-time key gives the browser a session cookie, which every other request needs. Host
and Origin are checked, so that neither another page nor a name that resolves to this computer (DNS
rebinding) can use the session.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import cookie_parser

LOOPBACK: Final = "127.0.0.1"
KEY: Final = "key"
"""Parameter of the link."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Status and text of a refused request."""

    status: int
    message: str


_NO_SESSION: Final = (
    "this browser has no session: open the link that `dora ui` has printed, or run `dora ui` again "
    "for a new one (a link can be used once)"
)


@dataclass(slots=True)
class Access:
    """Key and session of one server."""

    port: int
    session: str
    """Secret in the cookie."""
    key: str | None
    """Secret in the link; None after its use."""
    folder: str
    """Random first part of all paths: browsers send the cookie below it only, and so not to other
    servers on this computer, whatever their port is.
    """
    read_only: bool = False
    dataflow: str | None = None
    """UUID of the dataflow that the link shows first."""
    hosts: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = (LOOPBACK, "localhost")
        # Browsers leave out the usual port.
        usual = names if self.port == 80 else ()
        self.hosts = frozenset((*usual, *(f"{name}:{self.port}" for name in names)))

    @property
    def cookie_name(self) -> str:
        """Cookies do not depend on the port, so the name contains it."""
        return f"dora_ui_{self.port}"

    @property
    def link(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/?{KEY}={self.key}"

    @property
    def root(self) -> str:
        """Path of the page."""
        return f"/{self.folder}/"

    def set_cookie(self) -> str:
        """Return the header that starts the session."""
        return f"{self.cookie_name}={self.session}; HttpOnly; SameSite=Strict; Path={self.root}"

    def use_key(self, given: str) -> bool:
        """Return whether the key is right and was not used before."""
        if self.key is None or not hmac.compare_digest(self.key.encode(), given.encode()):
            return False
        self.key = None
        return True

    def refuse_host(self, headers: Mapping[str, str]) -> Refusal | None:
        """Return why the name or origin of a request is not accepted."""
        host = headers.get("host", "")
        if host not in self.hosts:
            return Refusal(421, f"this server is http://{LOOPBACK}:{self.port}")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return Refusal(403, "requests of other pages are not accepted")
        return None

    def refuse(
        self, method: str, headers: Mapping[str, str], *, websocket: bool = False
    ) -> Refusal | None:
        """Return why a request is not accepted; ``headers`` have lower-case names."""
        refused = self.refuse_host(headers)
        if refused is not None:
            return refused
        if not self._has_session(headers.get("cookie", "")):
            return Refusal(403, _NO_SESSION)
        if websocket and "origin" not in headers:
            return Refusal(403, "the header Origin is missing")
        if websocket or method in SAFE_METHODS:
            return None
        if "origin" not in headers:
            return Refusal(403, "the header Origin is missing")
        if self.read_only:
            return Refusal(403, "changes are disabled: `dora ui` runs with --read-only")
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return Refusal(415, "expected Content-Type: application/json")
        return None

    def _has_session(self, cookies: str) -> bool:
        """Cookies of other servers on this computer may have any form, and the same name."""
        return any(
            hmac.compare_digest(value.encode(), self.session.encode())
            for one in cookies.split(";")
            for name, value in cookie_parser(one).items()
            if name == self.cookie_name
        )
