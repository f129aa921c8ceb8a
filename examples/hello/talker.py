"""Sends a greeting at each of the first three ticks of a timer."""

import pyarrow as pa

from dora import Node

node = Node()
sent = 0
for event in node:
    if event["type"] == "INPUT":
        sent += 1
        node.send_output("greeting", pa.array([f"hello {sent}"]))
    if sent == 3:
        break
