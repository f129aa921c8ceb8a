"""Writes the number of messages and bytes, and the seconds from the first to the last."""

import time

from payload import write_result

from dora import Node


def main() -> None:
    node = Node()
    received = total = 0
    first = last = 0.0
    for event in node:
        if event["type"] != "INPUT":
            continue
        total += len(event["value"])
        last = time.monotonic()
        first = first or last
        received += 1
    write_result({"received": received, "bytes": total, "seconds": last - first})


if __name__ == "__main__":
    main()
