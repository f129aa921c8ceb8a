"""Sends small and large arrays; their values are the number of the message."""

import pyarrow as pa

from dora_node_api import Node

node = Node()
for number in range(100):
    size = 200_000 if number % 10 == 0 else 1
    node.send_output("numbers", pa.array([number] * size, type=pa.int32()))
