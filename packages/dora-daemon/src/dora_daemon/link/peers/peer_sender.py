"""Sending side of one peer: frames, acknowledgements and keep-alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from dora_daemon.link.io.session import MAX_LOW_LATENCY, LinkSession
from dora_daemon.link.peers.bulk_path import BulkPath
from dora_daemon.link.peers.low_latency import LowLatencyPath
from dora_daemon.link.protocol import frames
from dora_daemon.link.protocol.frames import FrameKind
from dora_daemon.link.protocol.handshake import LinkHandshake
from dora_daemon.link.protocol.keepalive import ACK_DELAY_NS, Keepalive
from dora_daemon.link.protocol.priority import Priority
from dora_daemon.link.streams.receiver import StreamReceiver

_NO_ACK = (0, 0)


class PeerSender:
    """Puts frames on the session in use or on the low-latency connection. Any thread."""

    def __init__(
        self,
        link_id: int,
        known: LinkHandshake,
        low_latency: LowLatencyPath,
        *,
        broken: Callable[[LinkSession, str], None],
        look_soon: Callable[[], None],
    ) -> None:
        """``broken``: a put failed on this session. ``look_soon``: schedule `soon` at once."""
        self.link_id = link_id
        self.session: LinkSession | None = None
        self._known = known
        self._low_latency = low_latency
        self._broken = broken
        self._look_soon = look_soon
        self._puts: dict[Priority, Callable[[bytes], None]] = {}
        self._path: BulkPath | None = None
        self._parted = 0
        """Number of the last frame that was sent in parts."""
        self._acks: dict[int, int] = {}
        self._ack_lock = threading.Lock()
        self._ack_due_ns = 0
        self._keepalive = Keepalive()
        self._watch_ns = 0
        """Time of the next call of `soon`; 0 if it is not scheduled."""

    @property
    def their_link(self) -> int:
        return self._known.their_link

    @property
    def ready(self) -> bool:
        """Whether a session is in use and its last put did not fail."""
        return bool(self._puts)

    def use(self, session: LinkSession, puts: Mapping[Priority, Callable[[bytes], None]]) -> None:
        """Send over this session from now on."""
        self.session = session
        self._puts = dict(puts)

    def forget(self) -> None:
        """Do not use the session any more."""
        self.session = None
        self._puts = {}

    # --- frames -----------------------------------------------------------------------------------

    def send(self, priority: Priority, frame: bytes, *, more: bool = False) -> bool:
        """Send a frame; return False without a session. ``more``: another one follows at once."""
        session, puts = self.session, self._puts
        put = puts.get(priority)
        if put is None or session is None:
            return False
        try:
            put(frame)
        except ConnectionError as error:
            # Not `lost_session`: the caller may hold a stream's lock, and this put may have waited
            # until another session was in use.
            puts.clear()
            self._broken(session, f"the connection broke: {error}")
            return False
        if priority is not Priority.CONTROL and not more:
            large = priority is not Priority.SMALL
            self._watch(self._keepalive.sent(time.monotonic_ns(), large=large))
        return True

    def room(self, most: int, stop: Callable[[], bool]) -> int:
        """Wait until a piece of a large message may be sent; return its size in bytes.

        ``most``: largest size of the piece; ``stop``: returns whether to stop waiting. Returns at
        once without a session.
        """
        session, theirs = self.session, self._known.their_hello
        if session is None or theirs is None:
            return most
        path = self._path
        if path is None or path.session is not session or path.zid != theirs.zid:
            self._path = path = BulkPath(session, theirs.zid)
        return path.room(most, lambda: stop() or self.session is not session)

    def control(self, kind: FrameKind, body: bytes = b"") -> None:
        """Send a control frame to the peer's present link."""
        head = frames.head(kind, self.link_id, self._known.their_link)
        self.send(Priority.CONTROL, head + body)

    def send_images(self, images: Sequence[bytes | memoryview], *, quick: bool) -> bool:
        """Send small messages, with an acknowledgement if one waits.

        ``quick``: over the low-latency connection if it takes them; only one thread sets it.
        """
        ack = self._take_ack() if self._acks else _NO_ACK
        head = frames.images_head(self.link_id, self._known.their_link, ack)
        return self._send_small(head, images, quick=quick)

    def send_image(
        self, stream: int, sequence: int, previous: int, sent_ns: int, flags: int, image: bytes
    ) -> bool:
        """Send one small message, as `send_images` with ``quick``."""
        ack = self._take_ack() if self._acks else _NO_ACK
        head = frames.single_image_head(
            self.link_id, self._known.their_link, ack, stream, sequence, previous, sent_ns, flags
        )
        session, nbytes = self._low_latency.session, len(head) + len(image)
        if session is None or nbytes > MAX_LOW_LATENCY:
            return self._send_small(head, (image,), quick=True)
        # As `_send_small`, in fewer instructions.
        put = self._low_latency.take(nbytes)
        if put is None:
            return self.send(Priority.SMALL, head + image)
        try:
            put(head + image)
        except ConnectionError as error:
            self._broken(session, f"the connection broke: {error}")
            return False
        return True

    def _send_small(
        self, head: bytes, images: Sequence[bytes | memoryview], *, quick: bool
    ) -> bool:
        session, nbytes = self._low_latency.session, len(head) + sum(map(len, images))
        put = self._low_latency.take(nbytes) if quick and session is not None else None
        if put is None or session is None:
            return self.send(Priority.SMALL, b"".join((head, *images)))
        try:
            if nbytes <= MAX_LOW_LATENCY:
                put(b"".join((head, *images)))
            else:
                link, peer = self.link_id, self._known.their_link
                self._parted = number = self._parted % 0xFFFFFFFF + 1
                most = MAX_LOW_LATENCY
                whole = images[0] if len(images) == 1 else b"".join(images)
                for part in frames.parts_of(number, head, whole, link, peer, most):
                    put(part)
        except ConnectionError as error:
            self._broken(session, f"the connection broke: {error}")
            return False
        return True

    # --- acknowledgements and timers --------------------------------------------------------------

    def stored(self, stream: StreamReceiver, *, at_once: bool) -> None:
        """Acknowledge what a stream has stored: at once, or together with others soon."""
        with self._ack_lock:
            if not self._acks:
                self._ack_due_ns = time.monotonic_ns() + ACK_DELAY_NS
            self._acks[stream.number] = stream.stored
        if at_once:
            self._flush_acks()
        else:
            self._watch(self._ack_due_ns)

    def _take_ack(self) -> tuple[int, int]:
        with self._ack_lock:
            return self._acks.popitem() if self._acks and self._known.confirmed else _NO_ACK

    def _flush_acks(self) -> None:
        with self._ack_lock:
            acks, self._acks = self._acks, {}
        if acks and self._known.confirmed:
            self.control(FrameKind.ACK, frames.acks_body(acks.items()))

    def _watch(self, due: int) -> None:
        """Schedule `soon`."""
        if not self._watch_ns or due < self._watch_ns:
            self._watch_ns = due
            self._look_soon()

    def soon(self, now: int, *, waiting: bool) -> tuple[int | None, bool]:
        """Send acknowledgements that are due.

        ``waiting``: whether messages are unacknowledged. Returns the nanoseconds until the next
        call, None until there are new messages; and whether a ping is due.
        """
        self._watch_ns = 0
        if self._acks and now >= self._ack_due_ns:
            self._flush_acks()
        again = self._keepalive.due(now, waiting=waiting)
        ping = again == 0
        if self._acks:
            left = max(0, self._ack_due_ns - now)
            again = left if again is None else min(again, left)
        if again is not None:
            self._watch_ns = now + again
        return again, ping
