"""Errors of the link process.

- `LinkProcessError` (a `RuntimeError`)
  - `WireError`: malformed frame from another machine
  - `CannotListen`: no session could be opened on any port of the range
  - `CannotConnect`: a peer's endpoint refused the connection or did not answer
  - `LinkEnds`: the process ends while a message waits for room
"""

from __future__ import annotations


class LinkProcessError(RuntimeError):
    """Base class of the link's errors."""


class WireError(LinkProcessError):
    """Malformed or contradictory frame from another machine."""


class CannotListen(LinkProcessError):
    """No session could be opened; the text names what was tried and the remedy."""


class CannotConnect(LinkProcessError):
    """A connection to a peer's endpoint failed; the text has the reason."""


class LinkEnds(LinkProcessError):
    """The process ends while a message waits for room in a local queue.

    The message was not stored and must not be acknowledged.
    """
