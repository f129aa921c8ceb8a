"""Says hello at each tick of a timer, three times."""

import pyarrow as pa

from dora import Node

node = Node()
said = 0
for event in node:
    if event["type"] == "INPUT":
        said += 1
        node.send_output("greeting", pa.array([f"hello {said}"]))
    if said == 3:
        break
