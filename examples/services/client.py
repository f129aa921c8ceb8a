"""Sends a request to a service and waits for the answer with its id."""

import os

import pyarrow as pa

from dora import Node

node = Node()
word = os.environ["WORD"]
request = node.send_service_request("question", pa.array([word]))
for event in node:
    if event["type"] == "INPUT" and event["metadata"].get("request_id") == request:
        print(f"{word} reversed is {event['value'][0].as_py()}")
        break
