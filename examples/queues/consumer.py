"""Takes its time over each number; prints which ones it got."""

import time

from dora import Node

got = []
for event in Node():
    if event["type"] == "INPUT":
        got.append(event["value"][0].as_py())
        time.sleep(0.02)
print(f"got {len(got)} of 40, the last ones {got[-3:]}")
