"""Passes on the ticks of a timer for two seconds."""

import pyarrow as pa

from dora import Node

node = Node()
for number, event in enumerate(node):
    if event["type"] == "STOP" or number == 40:
        break
    node.send_output("tick", pa.array([number]))
