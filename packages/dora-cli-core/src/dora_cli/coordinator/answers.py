"""Messages of the coordinator, decoded by the type that their request names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from dora_cli.coordinator.errors import RequestFailed, unexpected
from dora_config.protocol.envelope import Message, invalid_message
from dora_config.protocol.reports import EndedDataflow

if TYPE_CHECKING:
    from dora_config.access import Endpoint

A = TypeVar("A", bound=Message)


def is_of(message: type[Message], content: object) -> bool:
    """Return whether the content has the kind of this type."""
    kind = message.model_fields.get("kind")
    return isinstance(content, dict) and (kind is None or content.get("kind") == kind.default)


def decoded(at: Endpoint, message: type[A], content: bytes | object) -> A:
    """Return a message of this type; raises CoordinatorLost if the content is another one."""
    try:
        found = json.loads(content) if isinstance(content, bytes) else content
        if not is_of(message, found):
            raise ValueError(f"not {message.__name__}")
        return message.model_validate(found)
    except ValidationError as error:
        raise invalid_message(error, "client") from error
    except ValueError as error:
        raise unexpected(at, error) from error


def failed(at: Endpoint, sentence: object, failure: Mapping[str, object]) -> RequestFailed:
    """Return the error for a request that the coordinator refused."""
    ended = failure.get("ended")
    return RequestFailed(
        str(sentence),
        str(failure.get("code", "failed")),
        None if ended is None else decoded(at, EndedDataflow, ended),
    )
