"""Whether a peer has heard what we say of ourselves, and we what it says; pure.

A *pair* of rounds (ours, theirs) is confirmed once the peer's greeting names our link and our
present round. Whenever a new pair is confirmed, what was on the way before may be lost, and every
stream goes on from what the other side's greeting says.
"""

from __future__ import annotations

from dora_daemon.link.protocol.hello import Greeting, disagreement

_AGAIN_NS = 200_000_000
_SILENT_NS = 8_000_000_000


class Acquaintance:
    """What two links know of each other. Times are nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self, link: int) -> None:
        self.link = link
        """Number of our link."""
        self.round = 1
        self.their_link = 0
        self.their_greeting: Greeting | None = None
        self.confirmed = False
        self.heard_ns = 0
        self._greeted_ns = 0
        self._asked_ns = 0
        self._wants_greeting = True

    @property
    def their_round(self) -> int:
        return 0 if self.their_greeting is None else self.their_greeting.round

    def begin_round(self) -> None:
        """The session to the peer is new, or gone."""
        self.round += 1
        self.confirmed = False
        self._asked_ns = 0
        self._wants_greeting = True

    def forget(self) -> None:
        """Another life of the peer's part is to be expected."""
        self.their_link = 0
        self.their_greeting = None
        self.begin_round()

    def hear(self, link: int, receiver: int, greeting: Greeting, now: int) -> tuple[bool, bool]:
        """A greeting came. Returns whether it opens a new round of theirs, and whether a new pair
        of rounds is confirmed by it."""
        known = self.their_greeting
        new = link != self.their_link or known is None or known.round != greeting.round
        if not new and known is not None and greeting.said < known.said:
            return False, False  # overtaken by a later one
        before = self.confirmed and not new
        self.their_link = link
        self.their_greeting = greeting
        self.heard_ns = now
        self.confirmed = receiver == self.link and greeting.seen_round == self.round
        if new or greeting.wants_answer or not self.confirmed:
            self._wants_greeting = True
            if new:
                self._greeted_ns = 0
        return new, self.confirmed and not before

    def disagreement(self, ours: Greeting) -> str | None:
        """Why the two sides' lists of streams differ; None when they agree, or nothing is known."""
        return None if self.their_greeting is None else disagreement(ours, self.their_greeting)

    def say_again(self) -> None:
        """Our greeting has changed."""
        self._wants_greeting = True
        self._greeted_ns = 0

    def greeting_due(self, now: int, *, agreed: bool) -> bool:
        """Whether to greet now; call it often."""
        if now - self._greeted_ns < _AGAIN_NS:
            return False
        return self._wants_greeting or not self.confirmed or not agreed

    def greeted(self, now: int) -> None:
        """Our greeting was sent."""
        self._greeted_ns = now
        self._wants_greeting = False

    def silent(self, now: int) -> bool:
        """A confirmed peer of which nothing was heard for long."""
        return self.confirmed and now - self.heard_ns > _SILENT_NS

    def unanswered(self, now: int) -> bool:
        """A peer that has long not confirmed the present round; to be asked often."""
        if self.confirmed:
            self._asked_ns = 0
        elif self._asked_ns == 0:
            self._asked_ns = now
        return self._asked_ns != 0 and now - self._asked_ns > _SILENT_NS
