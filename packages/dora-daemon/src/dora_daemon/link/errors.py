"""What the link raises.

- `LinkError` (a `RuntimeError`)
  - `WireError`: bytes from another machine that are no frame
  - `CannotListen`: no session could be opened on any port of the range
  - `CannotConnect`: an endpoint of a peer did not let us in
  - `LinkEnds`: this process ends, and what waits for room goes with it
"""

from __future__ import annotations


class LinkError(RuntimeError):
    """Root of what the link raises."""


class WireError(LinkError):
    """Bytes from another machine that are no frame, or a frame that contradicts itself."""


class CannotListen(LinkError):
    """No session could be opened; the sentence says what was tried and what to do."""


class CannotConnect(LinkError):
    """An endpoint of a peer did not let us in; the sentence says why."""


class LinkEnds(LinkError):
    """The process ends while a message waits for room in a local queue: it was not stored, and its
    sender must not hear that it was."""
