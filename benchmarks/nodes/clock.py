"""Passes on every tick, until the dataflow is stopped."""

from payload import Payloads

from dora import Node


def main() -> None:
    payloads = Payloads(64)
    node = Node()
    for number, event in enumerate(node):
        if event["type"] == "INPUT":
            node.send_output("tick", payloads.stamped(number))


if __name__ == "__main__":
    main()
