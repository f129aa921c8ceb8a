"""Sends a reading at each tick, ten times."""

import pyarrow as pa

from dora import Node

node = Node()
for sent, event in enumerate(node, start=1):
    if event["type"] == "STOP" or sent > 10:
        break
    node.send_output("reading", pa.array([sent]))
