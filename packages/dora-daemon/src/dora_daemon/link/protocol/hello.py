"""How two links make acquaintance: who they are and which streams they expect; pure.

Each side sends its greeting until it has proof that the other has heard the present one: the other
names our link and our *round* in its own. A round begins whenever the session to a peer does. What
was on the way in an older round may be lost, so the sender of a stream begins each round with what
the receiver's greeting says it does not have.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dora_daemon.link.errors import WireError

PROTOCOL = 1
_LONGEST_NAME = 1024
_LARGEST = 1 << 62


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Leaving(_Part):
    """A stream that leaves the machine of who greets."""

    number: int = Field(ge=1, lt=1 << 32)
    """By which this link's frames name it."""
    node: str = Field(max_length=_LONGEST_NAME)
    output: str = Field(max_length=_LONGEST_NAME)
    given_up: int = Field(ge=0, lt=_LARGEST)
    """Messages up to this number will not be sent (again)."""
    window: int = Field(default=1, ge=1, lt=1 << 32)
    """Messages that may be on the way."""


class Entering(_Part):
    """A stream that enters the machine of who greets."""

    node: str = Field(max_length=_LONGEST_NAME)
    output: str = Field(max_length=_LONGEST_NAME)
    life: str = Field(max_length=_LONGEST_NAME)
    """run_id of the source's part that the numbers below belong to."""
    accepted: int = Field(ge=0, lt=_LARGEST)
    """Last message that was received; what comes after it is to be sent (again)."""
    stored: int = Field(ge=0, lt=_LARGEST)
    """Last message that is in all local queues: the acknowledgement."""
    listening: bool
    """Whether any local consumer is left."""


class Greeting(_Part):
    """All that a link says of itself."""

    protocol: int = PROTOCOL
    machine: str = Field(max_length=_LONGEST_NAME)
    run_id: str = Field(max_length=_LONGEST_NAME)
    round: int = Field(ge=0, lt=_LARGEST)
    seen_round: int = Field(default=0, ge=0, lt=_LARGEST)
    """The peer's round that it named last."""
    said: int = Field(default=0, ge=0, lt=_LARGEST)
    """Grows with every greeting of a round."""
    wants_answer: bool = False
    """The sender does not know yet that it was heard, or that both name the same streams."""
    zid: str = Field(default="", max_length=64)
    """Zenoh's id of the session that the sender uses for this peer."""
    leaving: tuple[Leaving, ...] = ()
    entering: tuple[Entering, ...] = ()


def encode(greeting: Greeting) -> bytes:
    return greeting.model_dump_json().encode()


def decode(body: bytes) -> Greeting:
    """Raises WireError for anything else."""
    try:
        return Greeting.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise WireError(f"no greeting: {first['loc']}: {first['msg']}") from error


def disagreement(ours: Greeting, theirs: Greeting) -> str | None:
    """Streams that one side sends and the other does not expect, or the reverse."""
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
