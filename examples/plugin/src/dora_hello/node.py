"""The node `path: dora-hello-node`: sends three greetings."""

import pyarrow as pa

from dora import Node


def main() -> None:
    node = Node()
    for number in (1, 2, 3):
        node.next()  # a tick
        node.send_output("greeting", pa.array([f"hello {number}"]))
