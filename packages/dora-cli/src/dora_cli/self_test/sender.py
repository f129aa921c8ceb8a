"""Sends arrays of all sizes, whose first value counts them."""

import pyarrow as pa

from dora_node_api import Node

node = Node()
for number in range(100):
    size = 200_000 if number % 10 == 0 else 1
    node.send_output("numbers", pa.array([number] * size, type=pa.int32()))
