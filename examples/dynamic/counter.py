"""Sends numbers until the viewer has ended, for at most a minute."""

import time

import pyarrow as pa

from dora import Node

node = Node()
print("counting; now start the viewer: python examples/dynamic/viewer.py")
end = time.monotonic() + 60
count = 0
for event in node:
    if event["type"] == "INPUT" and event["id"] == "enough":
        print("the viewer has seen enough")
        break
    if event["type"] == "STOP" or time.monotonic() > end:
        break
    if event["type"] == "INPUT":
        count += 1
        node.send_output("count", pa.array([count]))
