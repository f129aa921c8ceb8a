"""Sends back every array as it came, with its metadata."""

from dora import Node

node = Node()
for event in node:
    if event["type"] == "INPUT":
        node.send_output("answer", event["value"], event["metadata"])
