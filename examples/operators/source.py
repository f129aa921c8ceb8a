"""Sends the numbers from 1 to 5."""

import pyarrow as pa

from dora import Node

node = Node()
for number in range(1, 6):
    node.send_output("number", pa.array([number]))
