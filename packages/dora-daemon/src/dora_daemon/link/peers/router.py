"""Keys and frames: passes each frame to the peer that sent it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dora_daemon.link.errors import WireError
from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.peers.peer import PeerLink
from dora_daemon.link.protocol import access, frames, hello
from dora_daemon.link.protocol.access import PeerKeys
from dora_daemon.link.protocol.frames import HELLO_KIND


@dataclass(eq=False, slots=True)
class FrameRouter:
    """The peers of one link by machine and by link id. Frames arrive on Zenoh's threads."""

    link_id: int
    _machine: str
    _prefix: str
    """First part of every key of the dataflow."""
    _dataflow: str
    """Name or UUID."""
    _note: Callable[[str], None]
    _on_new_run: Callable[[str, str], None]
    """Called with a machine and the new run id when its part was restarted."""
    peers: dict[str, PeerLink] = field(default_factory=dict)
    _by_link: dict[int, PeerLink] = field(default_factory=dict)

    def key_to(self, machine: str) -> str:
        """Return the key of frames from this link to a machine's link."""
        return access.key(self._prefix, machine, self._machine)

    def channel(self, machine: str, name: str) -> PeerKeys:
        """Return the keys shared with a machine; ``name``: common name in its certificate."""
        return access.channel(self._prefix, self._machine, machine, name)

    def receive(self, machine: str, session: LinkSession, frame: bytes) -> None:
        """Handle a frame on the key of a machine, on a thread of Zenoh; raises nothing."""
        try:
            kind, _, _, sender, receiver = head = frames.read_head(frame)
            if kind == HELLO_KIND:
                self._receive_hello(machine, session, sender, receiver, frame)
                return
            peer = self._by_link.get(sender)
            if (
                peer is not None
                and peer.machine == machine
                and receiver == self.link_id
                and peer.known.their_link == sender  # its present link
            ):
                peer.receive(session, head, frame)
        except WireError as error:
            self._note(f"ignored malformed frame: {error}")
        except Exception as error:  # noqa: BLE001 - Zenoh's thread must go on
            self._note(f"cannot handle a frame: {type(error).__name__}: {error}")

    def _receive_hello(
        self, machine: str, session: LinkSession, sender: int, receiver: int, frame: bytes
    ) -> None:
        body = frame[frames.HEAD.size :]
        theirs = hello.identify(body)
        if theirs.machine != machine:
            raise WireError(f'hello of "{theirs.machine}" on the key of "{machine}"')
        peer = self.peers.get(theirs.machine)
        if peer is None or theirs.run_id < peer.run_id:
            return
        if theirs.run_id > peer.run_id:
            self._on_new_run(machine, theirs.run_id)  # its next hello is handled
            return
        problem = hello.incompatibility(theirs, self._dataflow)
        if problem is not None:
            peer.refuse(session, problem, wants_answer=theirs.wants_answer)
            return
        if sender not in self._by_link:
            self.forget_links(peer)
            self._by_link[sender] = peer
        peer.receive_hello(session, sender, receiver, hello.decode(body))

    def forget_links(self, peer: PeerLink) -> None:
        """Ignore frames of a peer's links until the next hello."""
        for link_id, known in list(self._by_link.items()):
            if known is peer:
                self._by_link.pop(link_id, None)
