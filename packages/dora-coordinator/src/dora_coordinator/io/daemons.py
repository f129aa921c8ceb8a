"""Connections of daemons: what they send becomes events, and messages are sent over them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count

from dora_config.process_identity import boot_id
from dora_config.protocol import daemon as messages
from dora_config.protocol.calls import LinkPart
from dora_coordinator.coordinator import CoordinatorState
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.connections import DaemonConnection, Renewal
from dora_coordinator.io.provenance import Provenance
from dora_coordinator.queries.daemon_calls import DaemonCalls, Reply
from dora_coordinator.state.events import (
    DaemonDisconnected,
    DaemonMessageReceived,
    DaemonRegistered,
    Event,
)
from dora_coordinator.state.identities import Proof
from dora_coordinator.state.membership import MAX_DELAY


class Daemons:
    """Calls and connections of daemons; the server opens, reads and closes the connections."""

    def __init__(
        self,
        authority: Authority,
        state: Callable[[], CoordinatorState],
        post: Callable[[Event], None],
        copies_due: Callable[[], None],
    ) -> None:
        """``copies_due``: called when standbys may need another copy of the store."""
        self._provenance = Provenance(authority)
        self._state = state
        self._post = post
        self._copies_due = copies_due
        self._numbers = count(1)
        self._open: dict[int, DaemonConnection] = {}
        self.admitted: dict[str, DaemonConnection] = {}
        """Connections by the key of their daemon."""
        self.calls = DaemonCalls(self._send_if_connected)

    @property
    def any_open(self) -> bool:
        """Whether a connection is open."""
        return bool(self._open)

    def connect(self, address: str, renewal: Renewal) -> DaemonConnection:
        connection = DaemonConnection(next(self._numbers), address, renewal)
        self._open[connection.number] = connection
        return connection

    def disconnect(self, connection: DaemonConnection) -> None:
        """The socket is closed, by either side."""
        connection.hang_up()
        del self._open[connection.number]
        if connection.daemon and self.admitted.get(connection.daemon) is connection:
            del self.admitted[connection.daemon]
        self._post(DaemonDisconnected(connection.number))

    def on_register(
        self, connection: DaemonConnection, register: messages.Register, proof: Proof
    ) -> None:
        connection.same_host = register.boot_id == boot_id() != ""
        register = self._provenance.registration(register)
        self._post(DaemonRegistered(connection.number, register, connection.address, proof))

    def on_message(self, connection: DaemonConnection, message: messages.DaemonMessage) -> None:
        offset = None
        if isinstance(message, messages.Heartbeat) and message.time is not None:
            offset = message.time - time.time()
            if connection.same_host and abs(offset) < MAX_DELAY:
                offset = 0.0
        if isinstance(message, messages.CopyKept):
            self._copies_due()
        if isinstance(message, Reply) and connection.daemon:
            self.calls.replied(connection.daemon, message)
        message = self._provenance.message(connection.daemon or "", message)
        self._post(DaemonMessageReceived(connection.number, message, offset))

    def sender(self, event: Event) -> str | None:
        """Return the key of the daemon that has sent the message of an event."""
        if not isinstance(event, DaemonMessageReceived):
            return None
        connection = self._open.get(event.connection)
        return None if connection is None else connection.daemon

    def admit(self, number: int, daemon: str) -> None:
        """Let messages to a daemon use a connection from now on."""
        self.calls.daemon_lost(daemon)  # what its earlier connection was to answer
        if (connection := self._open.get(number)) is not None:
            connection.daemon = daemon
            self.admitted[daemon] = connection
            self._copies_due()

    def send(self, daemon: str, message: messages.CoordinatorMessage) -> None:
        """Send a message; what the machine keeps of a dataflow is signed."""
        if (connection := self.admitted.get(daemon)) is None:
            return
        if isinstance(message, messages.PreparePart | LinkPart):
            dataflow = self._state().registry.get(message.dataflow_id)
            name = None if dataflow is None else dataflow.spec.name
            message = self._provenance.signed(message, name)
        connection.send(messages.TO_DAEMON.encode(message))

    def _send_if_connected(self, daemon: str, message: messages.CoordinatorMessage) -> bool:
        """Return whether the daemon is connected."""
        connected = daemon in self.admitted and self._state().membership.is_connected(daemon)
        if connected:
            self.admitted[daemon].send(messages.TO_DAEMON.encode(message))
        return connected

    async def fetch_code(self, digests: Sequence[str]) -> None:
        """Let connected machines upload files of code; raises FileRefused."""
        await self.calls.fetch_code(self.admitted, digests)

    def close(self, number: int, last: messages.CoordinatorMessage | None) -> None:
        """Close a connection after its last message."""
        if (connection := self._open.get(number)) is not None:
            if last is not None:
                connection.send(messages.TO_DAEMON.encode(last))
            self._hang_up(connection)

    def hang_up_all(self) -> None:
        """Close all connections once everything queued is written."""
        for connection in list(self._open.values()):
            self._hang_up(connection)

    def _hang_up(self, connection: DaemonConnection) -> None:
        if connection.daemon and self.admitted.get(connection.daemon) is connection:
            self.calls.daemon_lost(connection.daemon)
        connection.hang_up()
