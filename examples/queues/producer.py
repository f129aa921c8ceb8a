"""Sends forty numbers as fast as it may."""

import time

import pyarrow as pa

from dora import Node

node = Node()
begun = time.monotonic()
for number in range(40):
    node.send_output("number", pa.array([number]))
spent = time.monotonic() - begun
print(f"sent 40 numbers, {'held back by the consumer' if spent > 0.2 else 'held back by nobody'}")
