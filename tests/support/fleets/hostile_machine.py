"""A machine that has the token and a key of its own, and sends what no daemon would send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.fleets.coordinator import RunningCoordinator
from websockets.sync.client import ClientConnection

from dora_config.machine_identity import challenge_text
from dora_config.protocol.claims import Claim
from dora_config.protocol.daemon import (
    TO_COORDINATOR,
    TO_DAEMON,
    Challenge,
    CoordinatorMessage,
    DaemonMessage,
    Heartbeat,
    HeartbeatAck,
    IdentityProof,
    PartReport,
    Register,
)
from dora_daemon.agent.credentials import Credentials
from dora_testing.cluster.fleet import DAEMON


class HostileMachine:
    """A connection to a coordinator; `answer` is that to its registration."""

    def __init__(
        self,
        socket: ClientConnection,
        credentials: Credentials,
        machine: str,
        claim: Claim | None,
        parts: tuple[PartReport, ...],
        ends: tuple[PartReport, ...],
    ) -> None:
        self._socket = socket
        register = Register(
            party=DAEMON,
            instance=machine,
            incarnation="1",
            machine_id=machine,
            parts=parts,
            stored_ends=ends,
            public_key=credentials.public_key,
        )
        self.send(register)
        challenge = self.receive()
        assert isinstance(challenge, Challenge)
        text = challenge_text(challenge.nonce, challenge.authority)
        self.send(IdentityProof(signature=credentials.sign(text), claim=claim))
        self.answer = self.receive()

    def send(self, message: DaemonMessage) -> None:
        self._socket.send(TO_COORDINATOR.encode(message))

    def send_text(self, text: str) -> None:
        self._socket.send(text)

    def receive(self) -> CoordinatorMessage:
        return TO_DAEMON.decode(self._socket.recv(timeout=60))

    def until_handled(self) -> list[CoordinatorMessage]:
        """Return the answers to all that was sent so far."""
        self.send(Heartbeat(monotonic_ns=(marker := 1_234_567)))
        found: list[CoordinatorMessage] = []
        while True:
            message = self.receive()
            if isinstance(message, HeartbeatAck) and message.monotonic_ns == marker:
                return found
            found.append(message)


@contextmanager
def hostile_machine(
    coordinator: RunningCoordinator,
    folder: Path,
    machine: str = "robot",
    *,
    claim: Claim | None = None,
    parts: tuple[PartReport, ...] = (),
    ends: tuple[PartReport, ...] = (),
) -> Iterator[HostileMachine]:
    """Register as a machine with the key in ``folder``, or with a new one."""
    credentials = Credentials(folder)
    with coordinator.open_socket("/api/daemon") as socket:
        yield HostileMachine(socket, credentials, machine, claim, parts, ends)
