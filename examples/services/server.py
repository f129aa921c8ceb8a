"""A service: answers every request, with the request's id in the metadata."""

import pyarrow as pa

from dora import Node

node = Node()
served = 0
for event in node:
    if event["type"] == "INPUT":
        word = event["value"][0].as_py()
        node.send_service_response("answer", pa.array([word[::-1]]), event["metadata"])
        served += 1
print(f"served {served} requests")
