"""Reads another node's log entries and printed lines as messages."""

import json

from dora import Node

for event in Node():
    if event["type"] != "INPUT":
        continue
    text = event["value"][0].as_py()
    if event["id"] == "notes":
        entry = json.loads(text)
        print(
            f"note: {entry['level']} {entry['target']}: {entry['message']} {entry['fields'] or ''}"
        )
    else:
        print(f"line: {text.strip()}")
