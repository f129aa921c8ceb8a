"""An operator without memory: the square of each number."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dora import DoraStatus


class Operator:
    def on_event(self, dora_event: dict[str, Any], send_output: Callable[..., None]) -> DoraStatus:
        if dora_event["type"] == "INPUT":
            numbers: pa.Array = dora_event["value"]
            send_output("square", pc.multiply(numbers, numbers), dora_event["metadata"])
        return DoraStatus.CONTINUE
