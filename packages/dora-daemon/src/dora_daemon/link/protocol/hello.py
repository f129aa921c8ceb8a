"""The hello of a link: its identity and the streams that it sends and expects.

Each side repeats its hello until the peer's hello names our link and our *round*. A round begins
with every session to the peer. Frames of an older round may be lost, so a stream's sender begins
each round with what the receiver's hello does not list as accepted.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dora_config.protocol.links import LINK_PROTOCOL, LINK_VERSION, link_versions_fit
from dora_daemon._version import __version__
from dora_daemon.link.errors import WireError

_MAX_NAME = 1024
"""Most characters of a name that another machine sends."""
_MAX_NUMBER = 1 << 62
"""Exclusive upper bound of sequence numbers."""
_Hello = TypeVar("_Hello", bound="LinkIdentity")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LeavingStream(_Part):
    """A stream that leaves the sender's machine."""

    number: int = Field(ge=1, lt=1 << 32)
    """Number of the stream in this link's frames."""
    node: str = Field(max_length=_MAX_NAME)
    output: str = Field(max_length=_MAX_NAME)
    given_up: int = Field(ge=0, lt=_MAX_NUMBER)
    """Messages up to this number will not be sent again."""
    window: int = Field(default=1, ge=1, lt=1 << 32)
    """Messages that may be in flight."""


class EnteringStream(_Part):
    """A stream that enters the sender's machine."""

    node: str = Field(max_length=_MAX_NAME)
    output: str = Field(max_length=_MAX_NAME)
    run_id: str = Field(max_length=_MAX_NAME)
    """Run of the source's part that the numbers below belong to."""
    accepted: int = Field(ge=0, lt=_MAX_NUMBER)
    """Last message received; the peer sends later ones again."""
    stored: int = Field(ge=0, lt=_MAX_NUMBER)
    """Last message stored in all local queues: the acknowledgement."""
    listening: bool
    """Whether the stream has a local consumer."""


class LinkIdentity(_Part):
    """Identity of a link, in the format that links of every version send."""

    protocol: tuple[int, int] = LINK_VERSION
    release: str = Field(default=__version__, max_length=_MAX_NAME)
    """Version of dora."""
    machine: str = Field(max_length=_MAX_NAME)
    run_id: str = Field(max_length=_MAX_NAME)
    wants_answer: bool = False
    """Whether the sender has not confirmed the agreement of both sides yet."""


class LinkHello(LinkIdentity):
    """Identity, round and streams of a link."""

    round: int = Field(ge=0, lt=_MAX_NUMBER)
    seen_round: int = Field(default=0, ge=0, lt=_MAX_NUMBER)
    """The receiver's round in its last hello."""
    count: int = Field(default=0, ge=0, lt=_MAX_NUMBER)
    """Grows with every hello."""
    seen_count: int = Field(default=0, ge=0, lt=_MAX_NUMBER)
    """The receiver's count in its last hello."""
    zid: str = Field(default="", max_length=64)
    """Zenoh id of the session that the sender uses for this peer."""
    low_latency_port: int = Field(default=0, ge=0, le=65535)
    """Port for the low-latency connection; 0 without one."""
    leaving: tuple[LeavingStream, ...] = ()
    entering: tuple[EnteringStream, ...] = ()


def encode(hello: LinkHello) -> bytes:
    """Return the body of a HELLO frame."""
    return hello.model_dump_json().encode()


def identify(body: bytes) -> LinkIdentity:
    """Parse what every version sends in a HELLO frame. Raises WireError."""
    return _parse(LinkIdentity, body)


def decode(body: bytes) -> LinkHello:
    """Parse the body of a HELLO frame of a compatible link. Raises WireError."""
    return _parse(LinkHello, body)


def _parse(model: type[_Hello], body: bytes) -> _Hello:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise WireError(f"malformed hello: {first['loc']}: {first['msg']}") from error


def incompatibility(theirs: LinkIdentity, dataflow: str) -> str | None:
    """Return why this link cannot exchange messages with a peer, and the remedy.

    None: the minor versions are equal or neighbours. ``dataflow``: its name or UUID.
    """
    (major, minor), (their_major, their_minor) = LINK_VERSION, theirs.protocol
    if link_versions_fit(LINK_VERSION, theirs.protocol):
        return None
    return (
        f'"{theirs.machine}" runs this dataflow with dora {theirs.release} ({LINK_PROTOCOL}'
        f" {their_major}.{their_minor}), this machine with {__version__} ({major}.{minor}), and"
        " these cannot exchange messages; have the same version on both (`dora cluster upgrade`),"
        f" then run `dora restart {dataflow}`"
    )


def disagreement(ours: LinkHello, theirs: LinkHello) -> str | None:
    """Describe streams that one side sends and the other does not expect, or the reverse."""
    sent = {(s.node, s.output) for s in ours.leaving}
    expected = {(s.node, s.output) for s in theirs.entering}
    if sent != expected:
        return _names(sent - expected, "not expected there") or _names(
            expected - sent, "not sent from here"
        )
    coming = {(s.node, s.output) for s in theirs.leaving}
    wanted = {(s.node, s.output) for s in ours.entering}
    return _names(coming - wanted, "not expected here") or _names(
        wanted - coming, "not sent from there"
    )


def _names(streams: set[tuple[str, str]], problem: str) -> str | None:
    if not streams:
        return None
    names = ", ".join(f"{node}/{output}" for node, output in sorted(streams)[:5])
    return f"{names} {'is' if len(streams) == 1 else 'are'} {problem}"
