"""Version, message base and text form of the control plane's messages; does no I/O.

On a WebSocket a message is one text frame: a JSON object whose ``kind`` names the model. Every
connection begins with a greeting that carries :data:`PROTOCOL_VERSION`. Neighbouring minor
versions talk to each other, both ways: unknown fields are ignored, every field that is added has a
default, and a message of a kind that only the newer one knows is passed over
(:class:`UnknownKind`). Versions further apart are refused.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dora_config.errors import RemoteProtocolError


class Message(BaseModel):
    """Base of all control messages: immutable, tolerant of fields a newer version added."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ProtocolVersion(Message):
    """Version of the messages, not of the software."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


PROTOCOL_VERSION: Final = ProtocolVersion(major=1, minor=0)


class ProgramVersion(Message):
    """Who speaks: a program with its release and the protocol it speaks."""

    program: str
    release: str
    protocol: ProtocolVersion = PROTOCOL_VERSION

    def __str__(self) -> str:
        return f"{self.program} {self.release} (protocol {self.protocol})"


def version_problem(ours: ProgramVersion, theirs: ProgramVersion) -> str | None:
    """Why the two cannot talk, naming both versions, or ``None`` when they can."""
    mine, other = ours.protocol, theirs.protocol
    if mine.major == other.major and abs(mine.minor - other.minor) <= 1:
        return None
    newer = theirs if (other.major, other.minor) > (mine.major, mine.minor) else ours
    older = ours if newer is theirs else theirs
    return f"{theirs} and {ours} do not understand each other: upgrade the {older.program}"


class UnknownKind(RemoteProtocolError):
    """A whole message of a kind that this version does not know; to be passed over."""


T = TypeVar("T")


class Codec(Generic[T]):
    """Text to message and back for one direction of a wire (a tagged union on ``kind``)."""

    def __init__(self, union: Any, name: str) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(union)
        self._name = name

    def decode(self, text: str | bytes) -> T:
        """The message in ``text``; raises :class:`RemoteProtocolError` that names the field at
        fault.
        """
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            if first["type"] == "union_tag_invalid" and not first["loc"]:
                raise UnknownKind(f"not a message to the {self._name}: {first['msg']}") from error
            where = ".".join(str(part) for part in first["loc"]) or "the message"
            raise RemoteProtocolError(
                f"not a message to the {self._name}: {where}: {first['msg']}"
            ) from error

    def encode(self, message: T) -> str:
        return self._adapter.dump_json(message).decode()


def clean_text(text: str, *, limit: int = 2000) -> str:
    """``text`` from the wire made safe for a log line or a terminal: no control characters,
    bounded.
    """
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:limit])
    return shown if len(text) <= limit else shown + "..."


def clean_lines(text: str, *, limit: int = 4000) -> str:
    """As :func:`clean_text`, but lines stay lines; all but the first are indented."""
    return "\n  ".join(clean_text(line, limit=limit) for line in text[:limit].splitlines())
