"""Version, base class and codec of the control plane's messages; no I/O.

A message is one text frame of a WebSocket: a JSON object whose ``kind`` selects the model. Every
connection begins with a handshake that contains :data:`PROTOCOL_VERSION`. Neighbouring minor
versions are compatible: unknown fields are ignored, every added field has a default, and messages
of unknown kinds are skipped (:class:`UnknownKind`). Other versions are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from dora_config.errors import RemoteProtocolError
from dora_config.frozen import Frozen, is_interrupt
from dora_config.protocol import VERSION
from dora_config.terminal import clean_text as clean_text

DataflowUuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""Used in file names on daemons, hence the strict pattern."""


class Message(Frozen):
    """Immutable message that ignores fields of newer versions."""

    # Infinities and NaN would be encoded as null.
    model_config = ConfigDict(allow_inf_nan=False, ser_json_inf_nan="null")


A_co = TypeVar("A_co", bound=Message, covariant=True)
P_co = TypeVar("P_co", bound=Message, covariant=True)


class Request(Generic[A_co]):
    """A message to the coordinator that is answered with a message of this type."""

    @classmethod
    def answer_type(cls) -> type[A_co]:
        found: type[A_co] = _arguments(cls)[0]
        return found


class Query(Request[A_co]):
    """A request that changes nothing, and is answered soon."""


class FollowedRequest(Request[A_co], Generic[A_co, P_co]):
    """A request that takes long: messages of the second type precede the answer."""

    @classmethod
    def progress_types(cls) -> tuple[type[P_co], ...]:
        progress = _arguments(cls)[1]
        return get_args(progress) or (progress,)


def _arguments(request: type) -> tuple[Any, ...]:
    """Return the types in the brackets of the base `Request` of a class."""
    for base in vars(request)["__orig_bases__"]:
        kind = get_origin(base)
        if isinstance(kind, type) and issubclass(kind, Request):
            return get_args(base)
    raise TypeError(f"{request.__name__} does not name its answer")


class ProtocolVersion(Message):
    """Version of the messages; independent of the release of the software."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


PROTOCOL_VERSION: Final = ProtocolVersion(major=VERSION[0], minor=VERSION[1])


class ProgramVersion(Message):
    """One end of a connection: program, release and protocol version."""

    program: str
    release: str
    protocol: ProtocolVersion = PROTOCOL_VERSION

    def __str__(self) -> str:
        return f"{self.program} {self.release} (protocol {self.protocol})"


def version_problem(ours: ProgramVersion, theirs: ProgramVersion) -> str | None:
    """Return why two ends are incompatible, with both versions; ``None`` if they are compatible."""
    mine, other = ours.protocol, theirs.protocol
    if mine.major == other.major and abs(mine.minor - other.minor) <= 1:
        return None
    newer = theirs if (other.major, other.minor) > (mine.major, mine.minor) else ours
    older = ours if newer is theirs else theirs
    return f"{theirs} and {ours} are incompatible; upgrade the {older.program}"


class UnknownKind(RemoteProtocolError):
    """A well-formed message, or request in a `DaemonCall`, of a kind that this version does not
    have; skip it.
    """


T = TypeVar("T", bound=BaseModel)


class Codec(Generic[T]):
    """Encoder and decoder for one direction of a connection (a tagged union on ``kind``)."""

    def __init__(self, union: Any, name: str) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(union, config=ConfigDict(defer_build=True))
        self._name = name

    def decode(self, message: str | bytes | dict[str, Any]) -> T:
        """Return a message, as JSON or parsed; `RemoteProtocolError` names the wrong field."""
        try:
            if isinstance(message, dict):
                return self._adapter.validate_python(message)
            return self._adapter.validate_json(message)
        except ValidationError as error:
            raise invalid_message(error, self._name) from error
        except SchemaError as error:
            if is_interrupt(error):
                raise KeyboardInterrupt from None
            raise

    def encode(self, message: T) -> str:
        return message.model_dump_json()  # builds no validator of other messages


def invalid_message(error: ValidationError, receiver: str) -> RemoteProtocolError:
    """Return the error for a message that is not valid: the first wrong field."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "union_tag_invalid" and first["loc"] in ((), ("call", "request")):
        return UnknownKind(f"unknown message to the {receiver}: {first['msg']}")
    where = ".".join(str(part) for part in first["loc"]) or "the message"
    return RemoteProtocolError(f"invalid message to the {receiver}: {where}: {first['msg']}")


_MAX_LENGTH: Final = 4000
"""Most characters of a text with several lines, and of each line."""


def clean_lines(text: str) -> str:
    """Clean a text like :func:`clean_text`, but keep lines; all but the first are indented."""
    lines = text[:_MAX_LENGTH].splitlines()
    return "\n  ".join(clean_text(line, limit=_MAX_LENGTH) for line in lines)
