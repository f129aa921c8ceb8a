"""A recording that is written message by message, in the process that has the messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyarrow import Array

from dora_node_api.data.metadata import encode_metadata
from dora_recordings.arrow_messages import RecordedMessage, encode, schema_of
from dora_recordings.mcap_file import McapFile


class MessageFile:
    """The file, to which `add` writes at once."""

    def __init__(self, path: Path, source: Mapping[str, Any]) -> None:
        self.path = path
        self._file = McapFile(path, None, source)
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
        schema = schema_of(array)
        serialized = schema.serialize().to_pybytes()
        self._file.add(
            RecordedMessage(
                topic=output,
                type_name=str(array.type)[:200],
                schema=serialized,
                log_time=log_time,
                publish_time=publish_time,
                sequence=self._sequences[output],
                data=encode(array, encode_metadata(kept), schema, len(serialized)),
            )
        )
        self._sequences[output] += 1

    def finish(self) -> None:
        self._file.finish({})
