"""Which peer a frame belongs to."""

from __future__ import annotations

from typing import cast

import pytest

from dora_config.protocol.links import LINK_VERSION
from dora_daemon.link.errors import WireError
from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.peers.peer import PeerLink
from dora_daemon.link.peers.router import FrameRouter
from dora_daemon.link.protocol import frames, hello
from dora_daemon.link.protocol.frames import FrameKind, Head
from dora_daemon.link.protocol.handshake import LinkHandshake
from dora_daemon.link.protocol.hello import LinkHello
from dora_daemon.link.protocol.status import PeerStatus

OURS, THEIRS = 3, 7
SESSION = cast(LinkSession, None)


class FakePeer:
    machine, run_id = "b", "b-1"

    def __init__(self) -> None:
        self.known = LinkHandshake(THEIRS)
        self.status = PeerStatus()
        self.received: list[int] = []
        self.refused: list[str] = []

    def receive_hello(
        self, _session: LinkSession, sender: int, _receiver: int, _theirs: LinkHello
    ) -> None:
        self.known.their_link = sender

    def refuse(self, _session: LinkSession, problem: str, *, wants_answer: bool) -> None:
        self.refused.append(problem)

    def receive(self, _session: LinkSession, head: Head, _frame: bytes) -> None:
        kind = head[0]
        if kind == 99:
            raise WireError("unknown")
        self.received.append(kind)


class Routed:
    """A router with one peer."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.runs: list[tuple[str, str]] = []
        self.router = FrameRouter(
            OURS,
            "a b",
            "dora/net/flow",
            "patrol",
            self.notes.append,
            lambda machine, run: self.runs.append((machine, run)),
        )
        self.peer = FakePeer()
        self.router.peers["b"] = cast(PeerLink, self.peer)

    def hello(self, sender: int = THEIRS, on: str = "b", **fields: object) -> None:
        theirs = LinkHello(machine="b", run_id="b-1", round=1).model_copy(update=fields)
        body = hello.encode(theirs)
        self.router.receive(on, SESSION, frames.head(FrameKind.HELLO, sender, 0) + body)

    def frame(
        self,
        kind: int = FrameKind.BYE,
        sender: int = THEIRS,
        receiver: int = OURS,
        on: str = "b",
    ) -> None:
        self.router.receive(on, SESSION, frames.head(kind, sender, receiver))


@pytest.fixture
def routed() -> Routed:
    return Routed()


def test_keys_are_quoted(routed: Routed) -> None:
    assert routed.router.key_to("c/d") == "dora/net/flow/link/c%2Fd/a%20b"
    channel = routed.router.channel("c/d", "name")
    assert channel.incoming == "dora/net/flow/link/a%20b/c%2Fd"
    assert channel.outgoing == "dora/net/flow/link/c%2Fd/a%20b"


def test_frames_count_only_after_a_hello(routed: Routed) -> None:
    routed.frame()
    assert routed.peer.received == []
    routed.hello()
    routed.frame()
    assert routed.peer.received == [FrameKind.BYE]
    assert routed.notes == []


def test_frames_of_or_for_another_link_process_are_ignored(routed: Routed) -> None:
    routed.hello()
    routed.frame(receiver=OURS + 1)
    routed.frame(sender=THEIRS + 1)
    routed.hello(sender=THEIRS + 1)
    routed.frame(sender=THEIRS)
    assert routed.peer.received == []
    routed.router.forget_links(cast(PeerLink, routed.peer))
    routed.frame(sender=THEIRS + 1)
    assert routed.peer.received == []


def test_a_hello_of_another_run_or_machine_is_ignored(routed: Routed) -> None:
    routed.hello(run_id="b-0")
    routed.hello(machine="c")
    assert routed.peer.known.their_link == 0
    assert routed.runs == []


def test_a_later_run_is_reported_before_its_hello_counts(routed: Routed) -> None:
    routed.hello(run_id="b-2")
    assert routed.runs == [("b", "b-2")]
    assert routed.peer.known.their_link == 0


def test_frames_on_the_key_of_another_machine_are_ignored(routed: Routed) -> None:
    routed.hello(on="c")
    assert routed.peer.known.their_link == 0
    assert routed.notes == ['ignored malformed frame: hello of "b" on the key of "c"']
    routed.hello()
    routed.frame(on="c")
    assert routed.peer.received == []
    routed.frame()
    assert routed.peer.received == [FrameKind.BYE]


def test_another_protocol_version_is_reported(routed: Routed) -> None:
    major, minor = LINK_VERSION
    routed.hello(protocol=(major + 1, minor), release="9.9")
    assert routed.peer.known.their_link == 0
    (refused,) = routed.peer.refused
    assert '"b" runs this dataflow with dora 9.9 (link protocol 2.0), this machine with' in refused
    assert refused.endswith("then run `dora restart patrol`")


def test_the_identity_of_a_hello_that_has_changed_is_read(routed: Routed) -> None:
    body = b'{"protocol":[3,0],"release":"9.9","machine":"b","run_id":"b-1","new":1}'
    routed.router.receive("b", SESSION, frames.head(FrameKind.HELLO, THEIRS, 0) + body)
    assert "(link protocol 3.0)" in routed.peer.refused[0]
    assert routed.notes == []


@pytest.mark.parametrize("by", [-1, 1])
def test_neighbouring_minor_versions_work_together(
    routed: Routed, monkeypatch: pytest.MonkeyPatch, by: int
) -> None:
    monkeypatch.setattr(hello, "LINK_VERSION", (1, 7))
    routed.hello(protocol=(1, 7 + 2 * by))
    assert routed.peer.known.their_link == 0
    routed.hello(protocol=(1, 7 + by))
    assert routed.peer.known.their_link == THEIRS


def test_a_malformed_frame_is_noted(routed: Routed) -> None:
    routed.router.receive("b", SESSION, b"garbage")
    routed.hello()
    routed.frame(kind=99)
    assert [note.split(":")[0] for note in routed.notes] == ["ignored malformed frame"] * 2
