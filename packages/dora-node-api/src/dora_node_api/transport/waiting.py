"""Wait for messages: poll a little if they come fast, then sleep. Decides nothing about order."""

from __future__ import annotations

from dora_node_api.transport.receiving import Receiver


class Waiter:
    """Waits for any of many inputs and descriptors."""

    def add(self, receiver: Receiver) -> None:
        """Watch an input."""
        raise NotImplementedError

    def remove(self, receiver: Receiver) -> None:
        """Stop watching an input; call it before the receiver is closed."""
        raise NotImplementedError

    def add_fd(self, fd: int) -> None:
        """Watch a descriptor (the control socket, say) for being readable."""
        raise NotImplementedError

    def remove_fd(self, fd: int) -> None:
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> list[Receiver | int]:
        """The receivers and descriptors that are ready; empty when ``timeout`` seconds passed.

        None waits for ever, 0 only looks. Exact to some microseconds. An input listed may still
        turn out empty (its producer made room); one not listed may have become ready since.
        Signal handlers run, and what they raise passes through.
        """
        raise NotImplementedError

    def note_message(self) -> None:
        """Say that a message was just taken: decides whether the next `wait` polls first."""
        raise NotImplementedError

    def fileno(self) -> int:
        """A descriptor that is readable while anything is ready, for asyncio's `add_reader`.

        Before sleeping on it, call `wait(0)`: a record may be held by a receiver.
        """
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
