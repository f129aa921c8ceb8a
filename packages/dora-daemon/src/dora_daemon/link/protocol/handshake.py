"""Handshake with one peer: the link and round of each side, and whether the peer confirmed ours.

A *pair* of rounds (ours, theirs) is confirmed once the peer's hello names our link and our present
round. Frames sent before a new pair may be lost: every stream then continues from what the other
side's hello lists.
"""

from __future__ import annotations

from dora_daemon.link.protocol.hello import LinkHello, disagreement

_REPEAT_NS = 200_000_000
"""Nanoseconds between two hellos."""
_SILENT_NS = 8_000_000_000
"""Nanoseconds without a frame after which a connection is dropped."""


class LinkHandshake:
    """Handshake state with one peer. Times are nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self, link_id: int) -> None:
        self.link_id = link_id
        self.round = 1
        self.their_link = 0
        self.their_hello: LinkHello | None = None
        self.confirmed = False
        self.heard_ns = 0
        """Time of the peer's last frame."""
        self.count = 0
        """Hellos sent."""
        self._changed = 1
        """Number of the first hello with the present content."""
        self._hello_sent_ns = 0
        self._unconfirmed_ns = 0
        self._must_send = True

    @property
    def seen(self) -> bool:
        """Whether the peer has handled a hello with the present content."""
        theirs = self.their_hello
        return self.confirmed and theirs is not None and theirs.seen_count >= self._changed

    @property
    def their_round(self) -> int:
        return 0 if self.their_hello is None else self.their_hello.round

    def begin_round(self) -> None:
        """Handle a session that was opened or lost."""
        self.round += 1
        self.confirmed = False
        self._changed = self.count + 1
        self._unconfirmed_ns = 0
        self._must_send = True

    def forget(self) -> None:
        """Handle a new run of the peer's part."""
        self.their_link = 0
        self.their_hello = None
        self.begin_round()

    def receive(self, link_id: int, receiver: int, hello: LinkHello, now: int) -> tuple[bool, bool]:
        """Handle the peer's hello; return whether it opens a round of theirs, and whether it
        confirms a new pair of rounds."""
        known = self.their_hello
        new = link_id != self.their_link or known is None or known.round != hello.round
        if not new and known is not None and hello.count < known.count:
            return False, False  # a later hello has arrived before
        before = self.confirmed and not new
        asks = hello.wants_answer and not (known is not None and known.wants_answer)
        self.their_link = link_id
        self.their_hello = hello
        self.heard_ns = now
        self.confirmed = receiver == self.link_id and hello.seen_round == self.round
        if new or hello.wants_answer or not self.confirmed:
            self._must_send = True
            if new or asks:
                self._hello_sent_ns = 0
        return new, self.confirmed and not before

    def disagreement(self, ours: LinkHello) -> str | None:
        """Describe how the two lists of streams differ; None if they agree or are unknown."""
        return None if self.their_hello is None else disagreement(ours, self.their_hello)

    def hello_changed(self) -> None:
        """Schedule our hello at once: its content has changed."""
        self._changed = self.count + 1
        self._must_send = True
        self._hello_sent_ns = 0

    def hello_due(self, now: int, *, agreed: bool) -> bool:
        """Return whether to send our hello now."""
        if now - self._hello_sent_ns < _REPEAT_NS:
            return False
        return self._must_send or not self.seen or not agreed

    def hello_sent(self, now: int) -> None:
        """Note that our hello was sent."""
        self.count += 1
        self._hello_sent_ns = now
        self._must_send = False

    def silent(self, now: int) -> bool:
        """Return whether a confirmed peer has sent nothing for too long."""
        return self.confirmed and now - self.heard_ns > _SILENT_NS

    def unanswered(self, now: int) -> bool:
        """Return whether the peer has not confirmed the present round for too long. The first call
        in a round starts the time."""
        if self.confirmed:
            self._unconfirmed_ns = 0
        elif self._unconfirmed_ns == 0:
            self._unconfirmed_ns = now
        return self._unconfirmed_ns != 0 and now - self._unconfirmed_ns > _SILENT_NS
