"""Samples, the messages that their sender fills in place (`send_output_raw`)."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dora_node_api.backends.backend import Backend
from dora_node_api.transport.shared.errors import SampleError

if TYPE_CHECKING:
    from dora_node_api.transport.producer.blocks import SampleMemory


class SampleBuffer:
    """The memory of a sample as an object of the buffer protocol; BufferError once sent."""

    def __init__(self, handler: SampleHandler) -> None:
        # Weak: a handler that is dropped unsent gives its memory back.
        self._handler = weakref.ref(handler)

    def __buffer__(self, flags: int) -> memoryview:
        try:
            handler = self._handler()
            if handler is not None:
                return handler.as_memoryview()
        except SampleError as error:
            raise BufferError(str(error)) from None
        raise BufferError("this sample has no memory any more: its handler was dropped")

    def __len__(self) -> int:
        return len(memoryview(self))

    def __getitem__(self, place: Any) -> Any:
        return memoryview(self)[place]

    def __setitem__(self, place: Any, value: Any) -> None:
        memoryview(self)[place] = value


_CLASSES_CAN_BE_BUFFERS = sys.version_info >= (3, 12)


class SampleHandler:
    """Memory of one message, to be filled and sent once.

    `with handler as buffer:` sends when the block ends, and does not when it raises. A handler
    that is dropped unsent gives its memory back.
    """

    def __init__(
        self, backend: Backend, output: str, sample: SampleMemory, metadata: Mapping[str, Any]
    ) -> None:
        self._backend = backend
        self._output = output
        self._sample = sample
        self._metadata = metadata
        self._sent = False
        self._buffer = SampleBuffer(self) if _CLASSES_CAN_BE_BUFFERS else None

    def as_buffer(self) -> Any:
        """Return a writable object of the buffer protocol; the same one each time.

        Taking a view of it after the message was sent raises BufferError, and ValueError on Python
        3.11, where it is a memoryview.
        """
        self._check()
        return self._sample.as_buffer() if self._buffer is None else self._buffer

    def as_memoryview(self) -> memoryview:
        """Return a new writable view. Raises RuntimeError after the message was sent."""
        self._check()
        return self._sample.as_memoryview()

    def send(self) -> None:
        """Send the message, without a copy.

        Raises RuntimeError if it was sent before or if views of it are still open; then nothing
        is sent.
        """
        if self._sent:
            raise SampleError("this sample has already been sent")
        self._backend.send_sample(self._output, self._sample, self._metadata)
        self._sent = True

    def _check(self) -> None:
        if self._sent:
            raise SampleError("this sample has already been sent")

    def __enter__(self) -> Any:
        return self.as_buffer()

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is None and not self._sent:
            self.send()

    def __len__(self) -> int:
        return self._sample.nbytes

    def __repr__(self) -> str:
        state = "sent" if self._sent else "not sent"
        return f"<SampleHandler of output `{self._output}`, {len(self)} bytes, {state}>"
