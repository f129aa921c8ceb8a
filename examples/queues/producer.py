"""Sends forty numbers as fast as possible."""

import time

import pyarrow as pa

from dora import Node

node = Node()
begun = time.monotonic()
for number in range(40):
    node.send_output("number", pa.array([number]))
spent = time.monotonic() - begun
waited = spent > 0.2
print("sent 40 numbers,", "waiting for the consumer" if waited else "without waiting")
