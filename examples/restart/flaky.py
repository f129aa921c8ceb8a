"""Crashes at its third message, the first two times that it is started."""

import sys

import pyarrow as pa

from dora import Node

node = Node()
life = node.restart_count()
print(f"life {life} begins; restarted: {node.is_restart()}")
answered = 0
for event in node:
    if event["type"] != "INPUT":
        continue
    answered += 1
    node.send_output("answer", pa.array([life]), {"answer": answered})
    if life < 2 and answered == 3:
        sys.exit(f"life {life} crashes")
