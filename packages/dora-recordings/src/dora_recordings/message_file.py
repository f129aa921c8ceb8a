"""A recording that the process with the messages writes itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyarrow import Array

from dora_node_api.data.metadata import encode_metadata
from dora_recordings.arrow_messages import MessageEncoder
from dora_recordings.mcap_file import McapFile


class MessageFile:
    """File of a recording; `add` writes each message immediately."""

    def __init__(self, path: Path, source: Mapping[str, Any]) -> None:
        self.path = path
        self._file = McapFile(path, None, source)
        self._encoder = MessageEncoder()
        self._sequences: dict[str, int] = defaultdict(int)

    def add(
        self,
        output: str,
        array: Array,
        metadata: Mapping[str, Any],
        *,
        log_time: int,
        publish_time: int,
    ) -> None:
        """Write a message of `node/output`."""
        kept = {key: value for key, value in metadata.items() if key != "timestamp"}
        times, number = (log_time, publish_time), self._sequences[output]
        self._file.add(self._encoder.message(output, array, encode_metadata(kept), times, number))
        self._sequences[output] += 1

    def finish(self) -> None:
        self._file.finish({})
