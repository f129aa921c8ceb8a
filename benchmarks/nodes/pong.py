"""Sends back every message."""

from dora import Node


def main() -> None:
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("pong", event["value"])


if __name__ == "__main__":
    main()
