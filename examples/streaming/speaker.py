"""Prints one word at a time; a flush removes the waiting ones."""

import time

import pyarrow as pa

from dora import Node

node = Node()
spoken: dict[int, int] = {}
for event in node:
    if event["type"] != "INPUT":
        continue
    word, metadata = event["value"][0].as_py(), event["metadata"]
    print(word)
    spoken[metadata["segment_id"]] = spoken.get(metadata["segment_id"], 0) + 1
    node.send_output("heard", pa.array([word]))
    time.sleep(0.05)  # time to speak a word
    if metadata["segment_id"] == 2 and metadata["fin"]:
        break
print(f"spoke {spoken[1]} of 40 words of the first answer, {spoken[2]} of 3 of the second")
