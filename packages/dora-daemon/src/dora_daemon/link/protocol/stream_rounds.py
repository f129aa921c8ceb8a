"""Rounds of a peer's streams: the streams that begin a round, and those that may send in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from dora_daemon.link.protocol.handshake import LinkHandshake
from dora_daemon.link.protocol.hello import EnteringStream, LeavingStream, LinkHello

Source = tuple[str, str]
"""Node and output."""


class StreamRounds:
    """The rounds that streams of one peer have begun in."""

    def __init__(self) -> None:
        self._begun: dict[Source, tuple[int, int, str]] = {}
        self._resumed: dict[int, tuple[int, int, int, bool]] = {}

    def interrupt(self) -> None:
        """Pause every outgoing stream until the next pair of rounds."""
        self._resumed.clear()

    def forget(self) -> None:
        """Begin every stream again, because the peer's part was restarted."""
        self._begun.clear()
        self._resumed.clear()

    def keep(self, incoming: Collection[Source]) -> None:
        """Forget incoming streams that are gone."""
        for source in self._begun.keys() - set(incoming):
            del self._begun[source]

    def beginning(
        self, their_link: int, hello: LinkHello, incoming: Mapping[Source, int]
    ) -> Iterator[tuple[LeavingStream, bool]]:
        """Yield the peer's entry of each incoming stream (by source: its number), and whether the
        stream begins a round with it."""
        now = (their_link, hello.round, hello.run_id)
        for leaving in hello.leaving:
            source = (leaving.node, leaving.output)
            number = incoming.get(source)
            if number is None:
                continue
            begins = self._begun.get(source) != now or number != leaving.number
            self._begun[source] = now
            yield leaving, begins

    def resuming(
        self, known: LinkHandshake, run_id: str, outgoing: Mapping[Source, int]
    ) -> Iterator[tuple[Source, EnteringStream | None]]:
        """Yield the outgoing streams (by source: their number) to resume with the peer's entry, or
        to pause (None): the peer does not expect them from this run."""
        hello = known.their_hello
        if hello is None or not known.confirmed:
            return
        expected = {(entry.node, entry.output): entry for entry in hello.entering}
        for source, number in outgoing.items():
            entry = expected.get(source)
            if entry is None or entry.run_id != run_id:
                self._resumed.pop(number, None)
                yield source, None
                continue
            pair = (known.their_link, known.round, hello.round, entry.listening)
            if self._resumed.get(number) != pair:
                self._resumed[number] = pair
                yield source, entry
