"""Arrow arrays and metadata to a flat payload, and back without copying.

pyarrow is imported when the first array is touched, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

OnWarning = Callable[[str], None]


class EncodedPayload:
    """A message ready to be written into a block of known size."""

    nbytes: int
    """Size of the data area."""


def encode(
    data: Any, metadata: Mapping[str, Any] | None = None, *, on_warning: OnWarning | None = None
) -> EncodedPayload:
    """Describe ``data`` (bytes, pyarrow Array, numpy array, any buffer) and metadata for sending.

    Nothing is copied yet. ``on_warning`` gets a sentence for each metadata value that was turned
    into text. Raises TypeError naming what is accepted.
    """
    raise NotImplementedError


def encode_metadata(
    metadata: Mapping[str, Any] | None, *, on_warning: OnWarning | None = None
) -> bytes:
    """Metadata as bytes; b"" when there is none. Raises TypeError for a key that is not str."""
    raise NotImplementedError


def decode_metadata(encoded: bytes | memoryview) -> dict[str, Any]:
    """The inverse of `encode_metadata`. Raises ValueError for bytes that are none."""
    raise NotImplementedError
