"""Messages in flight of one stream: the sender's window and the receiver's order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class SendWindow(Generic[T]):
    """Messages sent and not yet acknowledged, oldest first, to be sent again in a new round."""

    def __init__(self, messages: int, nbytes: int, *, last: int = 0) -> None:
        """``last``: number of the last message before this window."""
        self.messages = messages
        self.nbytes = nbytes
        self.limit = nbytes
        """Bytes that may be in flight now, at most ``nbytes``."""
        self.bytes_out = 0
        self.last = last
        """Number of the last message added."""
        self.given_up = last
        """Messages up to this number will not be sent again."""
        self.open = True
        """Whether another message may be sent, even one larger than the window."""
        self._out: OrderedDict[int, tuple[int, int, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._out)

    def add(self, sequence: int, nbytes: int, item: T) -> None:
        """Add a message; its number is larger than all before."""
        self._out[sequence] = (self.last, nbytes, item)
        self.bytes_out += nbytes
        self.last = sequence
        self.open = self.bytes_out < self.limit and len(self._out) < self.messages

    def acknowledge(self, sequence: int) -> int:
        """Remove messages up to this number; return how many."""
        count = 0
        while self._out:
            first = next(iter(self._out))
            if first > sequence:
                break
            _, nbytes, _ = self._out.popitem(last=False)[1]
            self.bytes_out -= nbytes
            self.given_up = first
            count += 1
        self.restrict(self.limit)
        return count

    def restrict(self, nbytes: int) -> None:
        """Set the bytes that may be in flight."""
        self.limit = min(nbytes, self.nbytes)
        left = len(self._out)
        self.open = not left or (self.bytes_out < self.limit and left < self.messages)

    def after(self, sequence: int) -> Iterator[tuple[int, int, T]]:
        """Yield number, previous number and item of the messages after ``sequence``."""
        for number, (previous, _, item) in list(self._out.items()):
            if number > sequence:
                yield number, previous, item


class ReceiveOrder(Generic[T]):
    """Restores the sender's order across priorities; detects gaps and repetitions."""

    def __init__(self, last: int = 0) -> None:
        self.last = last
        """Number of the last message returned."""
        self.lost = 0
        """Messages that will not arrive although no queue dropped them."""
        self.repeated = 0
        self.early: dict[int, tuple[int, T]] = {}
        """Messages that wait for an earlier one: number before, and item."""

    def __len__(self) -> int:
        """Return how many messages wait for an earlier one."""
        return len(self.early)

    def accept(self, sequence: int, previous: int, item: T) -> list[tuple[int, T]]:
        """Add a message; return the messages that are now in order."""
        if sequence <= self.last or sequence in self.early:
            self.repeated += 1
            return []
        if previous > self.last:
            self.early[sequence] = (previous, item)
            return []
        ready = [(sequence, item)]
        self.last = sequence
        while self.early:
            first = min(self.early)
            if self.early[first][0] > self.last:
                break
            _, early = self.early.pop(first)
            if first > self.last:
                ready.append((first, early))
                self.last = first
        return ready

    def begin_round(self, given_up: int) -> None:
        """Forget early messages, which a new session repeats; none up to ``given_up`` will come."""
        self.early.clear()
        if given_up > self.last:
            self.lost += given_up - self.last
            self.last = given_up
