"""Writes the ages of the messages of each input when they arrive; the hosts have one clock."""

import time

from payload import write_result

from dora import Node


def main() -> None:
    node = Node()
    ages: dict[str, list[int]] = {}
    for event in node:
        if event["type"] != "INPUT":
            continue
        now = time.monotonic_ns()
        ages.setdefault(event["id"], []).append(now - event["metadata"]["sent_ns"])
    write_result({"ages_ns": ages})


if __name__ == "__main__":
    main()
