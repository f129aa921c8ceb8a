"""Encode the metadata of a message to bytes, and decode it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from dora_node_api.errors import DoraNodeError

OnWarning = Callable[[str], None]

_UTC = timezone.utc  # noqa: UP017 (UTC is another import)
_EPOCH = datetime(1970, 1, 1, tzinfo=_UTC)
_MICROSECOND = timedelta(microseconds=1)
_dumps = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_loads = json.JSONDecoder().decode
_PLAIN = (str, bool, float)

EVENTS_KEY = "dora.events"
"""Metadata of messages that are being recorded, see `backends.event_notes`; not for nodes."""


class UnsupportedData(DoraNodeError, TypeError, RuntimeError):
    """Data or metadata that cannot be sent. Also a RuntimeError, as in dora-rs."""


_pickled_epoch: Any = _EPOCH.__reduce__()[1]
_second: tuple[int, bytes] = (0, _pickled_epoch[0][:-3])
"""Cache of `utc_datetime`: start of the last converted second in nanoseconds, and the pickled state
of its datetime without the microseconds."""
_unpickle: Any = datetime


def utc_datetime(nanoseconds: int) -> datetime:
    """Convert CLOCK_REALTIME nanoseconds to a datetime in UTC, cut to microseconds."""
    global _second
    start, state = _second
    rest = nanoseconds - start
    if not 0 <= rest < 1_000_000_000:
        # Cached for a second: converting the seconds costs more than the rest.
        rest = nanoseconds % 1_000_000_000
        start = nanoseconds - rest
        whole = _EPOCH + timedelta(microseconds=start // 1000)
        pickled: Any = whole.__reduce__()[1]
        state = pickled[0][:-3]
        _second = start, state
    # Made from a pickled state: a third of the time of the constructor with seven numbers.
    made: datetime = _unpickle(state + (rest // 1000).to_bytes(3, "big"), _UTC)
    return made


def encode_metadata(
    metadata: Mapping[str, Any] | None, *, on_warning: OnWarning | None = None
) -> bytes:
    """Return metadata as bytes, b"" for none.

    Values are bool, int of 64 bits, float, str, datetime (converted to UTC; without a time zone it
    is local time), and lists or tuples of text or of numbers (all floats if any is one). Others are
    sent as their `str()`, for which ``on_warning`` is called. A datetime is ``{"t": microseconds
    since 1970}``. Raises UnsupportedData if a key is not a str, and for anything
    but a mapping.
    """
    if not metadata:
        return b""
    if type(metadata) is not dict and not isinstance(metadata, Mapping):
        raise UnsupportedData(
            f"metadata is of type {type(metadata).__name__}; pass a dict with str keys, or None"
        )
    plain = {}
    for key, value in metadata.items():
        kind = type(value)
        if type(key) is not str and not isinstance(key, str):
            raise UnsupportedData(
                f"metadata key {key!r} is of type {type(key).__name__}; keys must be str"
            )
        if (
            kind is str
            or kind is bool
            or kind is float
            or (kind is int and -(1 << 63) <= value < 1 << 63)
        ):
            plain[key] = value
        else:
            plain[key] = _encode_value(key, value, on_warning)
    return _dumps(plain).encode()


def _encode_value(key: str, value: Any, on_warning: OnWarning | None) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, int):
        if -(1 << 63) <= value < 1 << 63:
            return int(value)
    elif isinstance(value, datetime):
        return {"t": (value.astimezone(_UTC) - _EPOCH) // _MICROSECOND}
    elif isinstance(value, (list, tuple)):
        numbers = _encode_list(value)
        if numbers is not None:
            return numbers
    if on_warning is not None:
        on_warning(
            f"metadata {key!r} is of type {type(value).__name__} and is sent as text; send a bool, "
            "a 64-bit int, a float, a str, a datetime, or a list of numbers or of text"
        )
    return str(value)


def _encode_list(values: list[Any] | tuple[Any, ...]) -> list[Any] | None:
    """Return a list of texts, of 64-bit ints or of floats (if any is one); None for others."""
    if all(isinstance(value, str) for value in values):
        return list(values)
    if not all(
        isinstance(value, float) or (isinstance(value, int) and -(1 << 63) <= value < 1 << 63)
        for value in values
    ):
        return None
    if all(isinstance(value, int) for value in values):
        return list(values)
    return [float(value) for value in values]


def decode_metadata(encoded: bytes | memoryview) -> dict[str, Any]:
    """Inverse of `encode_metadata`, without notes. Raises ValueError for invalid bytes."""
    if not encoded:
        return {}
    decoded = _loads(str(encoded, "utf-8"))
    if not isinstance(decoded, dict):
        raise ValueError("metadata is not a mapping")
    decoded.pop(EVENTS_KEY, None)
    for key, value in decoded.items():
        if type(value) is dict:
            try:
                decoded[key] = _EPOCH + timedelta(microseconds=value["t"])
            except (KeyError, TypeError, OverflowError) as error:
                raise ValueError(f"metadata {key!r} has an unknown type") from error
    return decoded


def split_notes(encoded: bytes) -> tuple[bytes, bytes]:
    """Return encoded metadata without the notes of `EVENTS_KEY`, and these."""
    if EVENTS_KEY.encode() not in encoded:
        return encoded, b""
    values = _loads(encoded.decode())
    notes = values.pop(EVENTS_KEY, "")
    return _dumps(values).encode() if values else b"", notes.encode()


def captured_ns(metadata: Mapping[str, Any]) -> int | None:
    """Return when a message was captured, by its sender's CLOCK_REALTIME, in nanoseconds.

    That is `stamp`, as int nanoseconds, float seconds or a datetime; if that is zero, of another
    type or missing it is `timestamp`. None if neither exists.
    """
    stamp = metadata.get("stamp")
    if isinstance(stamp, int) and stamp and not isinstance(stamp, bool):
        return stamp
    if isinstance(stamp, float) and 0 < abs(stamp) < _MAX_SECONDS:
        return round(stamp * 1e9)
    for time in (stamp, metadata.get("timestamp")):
        if isinstance(time, datetime):
            return datetime_ns(time)
    return None


def datetime_ns(time: datetime) -> int:
    """Inverse of `utc_datetime`; without a time zone it is local time."""
    return (time.astimezone(_UTC) - _EPOCH) // _MICROSECOND * 1000


def has_unusable_stamp(metadata: Mapping[str, Any]) -> bool:
    """Return whether `stamp` is set but not a valid time, so that `captured_ns` ignores it."""
    stamp = metadata.get("stamp")
    if isinstance(stamp, bool) or not isinstance(stamp, (int, float, datetime)):
        return stamp is not None
    return isinstance(stamp, float) and not abs(stamp) < _MAX_SECONDS


def move_times(metadata: dict[str, Any], nanoseconds: int) -> None:
    """Make `stamp` and `timestamp` later, in the form that they have."""
    for key in ("stamp", "timestamp"):
        time = metadata.get(key)
        if isinstance(time, datetime):
            metadata[key] = time + timedelta(microseconds=nanoseconds // 1000)
        elif key == "stamp" and time and not isinstance(time, bool):
            if isinstance(time, int):
                metadata[key] = time + nanoseconds
            elif isinstance(time, float):
                metadata[key] = time + nanoseconds / 1e9


_MAX_SECONDS = 9e9
"""Seconds from which a float is not a Unix time: as nanoseconds it does not fit into 64 bits."""
