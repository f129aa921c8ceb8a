"""Waits for rare events; writes a file when it is ready."""

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
