"""Waits for events that hardly come; says in a file that it is ready."""

from payload import write_result

from dora import Node


def main() -> None:
    node = Node()
    write_result({"ready": True})
    for event in node:
        if event["type"] == "STOP":
            break


if __name__ == "__main__":
    main()
