"""An operator with memory: the sum of all numbers so far."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from dora import DoraStatus


class Operator:
    def __init__(self) -> None:
        self.total = 0

    def on_event(self, dora_event: dict[str, Any], send_output: Callable[..., None]) -> DoraStatus:
        if dora_event["type"] == "INPUT":
            self.total += dora_event["value"][0].as_py()
            send_output("total", pa.array([self.total]), dora_event["metadata"])
        return DoraStatus.CONTINUE
