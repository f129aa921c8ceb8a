"""Checks that all arrays arrive complete and in order."""

import sys

from dora_node_api import Node

expected = 0
for event in Node():
    if event["type"] == "INPUT":
        values = event["value"]
        size = 200_000 if expected % 10 == 0 else 1
        if len(values) != size or values[0].as_py() != expected or values[-1].as_py() != expected:
            sys.exit(f"message {expected} arrived as {len(values)} values of {values[0]}")
        expected += 1
print(f"self-test: {expected} messages arrived", flush=True)
sys.exit(expected != 100)
